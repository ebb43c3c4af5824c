"""What a worker tells others of its sessions when NATS takes it more slowly than it comes."""

import asyncio
import gc

import msgspec
from kaa_bench.mqtt_packets import Connack

from tests.support.esp import until
from tests.support.fake_nats import FakeConnection, FakeNats
from tests.support.mqtt import mqtt_peer
from tests.support.worker import configuration, running_worker_of

CLIENTS = 1000
REPLICA = "r" * 16_000
"""It stands in each message, so that few sessions make many bytes."""
MIB = 1024 * 1024
TIMEOUT_S = 60.0
WAITING_BYTES_MAX = 4 * MIB
SLICE = 2 * MIB
"""Bytes of one slice that come on top, with messages of this size, at most."""
KERNEL = 5 * MIB
"""Bytes that the kernel takes although nobody reads."""


async def serve(connection: FakeConnection) -> None:
    """Read what comes, and answer PING."""
    while line := await connection.line():
        if line == "PING":
            await connection.send(b"PONG\r\n")


def bytes_waiting() -> int:
    """Return the bytes that wait for NATS in the link's transport, which shows them to nobody.

    The first bytes object counts as a whole, also if the socket has taken some of it: a slice at most.
    """
    (transport,) = (each for each in gc.get_objects() if type(each).__name__ == "SocketTransport")
    (waiting,) = (each for each in gc.get_referents(transport) if isinstance(each, list))
    return sum(len(memoryview(piece)) for piece in waiting)


async def test_sessions_that_nats_does_not_take_do_not_fill_the_memory() -> None:
    """A worker with a new connection tells of all its sessions: the server reads the first of them only."""
    replace = msgspec.structs.replace
    async with FakeNats() as nats:
        nats.limit_input(4096)
        config = configuration(nats.url)
        instance = config.service.instance
        instance = replace(instance, replica=replace(instance.replica, id=REPLICA))
        mqtt = replace(config.transports.mqtt, takeover_timeout=0.1)
        config = replace(
            config,
            service=replace(config.service, instance=instance),
            transports=replace(config.transports, mqtt=mqtt),
        )
        running = running_worker_of(config)
        entering = asyncio.create_task(running.__aenter__())
        first = await nats.admitted()
        serving = asyncio.create_task(serve(first))
        worker = await entering

        async def come_and_go(number: int) -> None:
            async with mqtt_peer(worker.ports["mqtt"]) as peer:
                assert await peer.connect(f"client-{number}", clean_session=False) == Connack(False, 0)

        try:
            for start in range(0, CLIENTS, 200):
                await asyncio.gather(*(come_and_go(start + number) for number in range(200)))
                await until(lambda: worker.link.unread < MIB, "the server to read", TIMEOUT_S)
            first.reset()
            await asyncio.gather(serving, return_exceptions=True)
            await nats.admitted()
            await until(lambda: bytes_waiting() > WAITING_BYTES_MAX, "the bytes that wait")
            for _ in range(1000):
                await asyncio.sleep(0)
            waiting = bytes_waiting()
            assert CLIENTS * len(REPLICA) > KERNEL + WAITING_BYTES_MAX + 2 * SLICE
            assert waiting <= WAITING_BYTES_MAX + 2 * SLICE
        finally:
            await running.__aexit__(None, None, None)
