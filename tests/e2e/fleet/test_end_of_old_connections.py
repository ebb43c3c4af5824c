"""The old connection of a client has ended when the CONNACK of the new one is sent: MQTT 3.1.1 section 3.1.4.

What counts is what the kernel of the client has got, and not when the client looks at its sockets.
"""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from kaa_bench import mqtt_packets as mqtt

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.fleet import Fleet, fleet
from tests.support.nats import HOST, NatsServer

TCP_ESTABLISHED = 1
PUSHES = 4
"""Fewer than end the connection of a client that does not read."""
TOKEN = "token"
SUBSCRIBE = mqtt.Subscribe(1, ((f"kp1/app_v1/dcx/{TOKEN}/#", 0),))


@pytest.fixture
async def two(shared_nats: NatsServer) -> AsyncIterator[Fleet]:
    async with fleet(shared_nats.url, 2) as found:
        yield found


async def connected(port: int, *, buffer_size: int = 65_536) -> socket.socket:
    """Return a connection whose CONNACK has arrived."""
    loop = asyncio.get_running_loop()
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
    found.setblocking(False)
    await loop.sock_connect(found, (HOST, port))
    await loop.sock_sendall(found, mqtt.encode(mqtt.Connect("c", clean_session=False, keep_alive=0)))
    connack, _ = mqtt.decode(await asyncio.wait_for(loop.sock_recv(found, 4), 30))
    assert isinstance(connack, mqtt.Connack)
    assert connack.return_code == 0
    return found


def is_open(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED


async def test_the_old_connection_has_ended_before_the_connack(two: Fleet) -> None:
    """On another worker, and on the same one."""
    old = await connected(two.ports[0])
    for number in (1, 0, 0, 1, 1, 0) * 5:
        new = await connected(two.ports[number])
        assert not is_open(old)
        assert is_open(new)
        old.close()
        old = new
    old.close()


@pytest.mark.parametrize("number", [0, 1], ids=["same worker", "other worker"])
async def test_a_client_that_does_not_read_has_no_old_connection_either(
    two: Fleet, shared_nats: NatsServer, number: int
) -> None:
    """What the gateway keeps for it is dropped with the connection."""
    loop = asyncio.get_running_loop()
    old = await connected(two.ports[0], buffer_size=4096)
    await loop.sock_sendall(old, mqtt.encode(SUBSCRIBE))
    await until(lambda: len(two.workers[0].sessions.endpoints) > 0, "the endpoint")
    async with Cluster(shared_nats.url) as cluster:
        for number_of_push in range(PUSHES):
            await cluster.push(TOKEN, b"%d" % number_of_push + b"x" * 900_000)
        await until(
            lambda: two.sessions()[0].describe()["endpoints"][0]["messagesOut"] == PUSHES, "all pushes"
        )
    new = await connected(two.ports[number])
    assert not is_open(old)
    assert is_open(new)
    old.close()
    new.close()
