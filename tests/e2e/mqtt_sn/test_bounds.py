"""MQTT-SN at its bounds, with hostile peers, when the gateway stops, and over DTLS."""

import asyncio
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from tests.e2e.mqtt_sn.conftest import SnGateway
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.dtls import IDENTITY, KEY, DtlsClient
from tests.support.esp import until
from tests.support.mqtt_sn import (
    CONGESTION,
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PREDEFINED,
    PUBACK,
    PUBLISH,
    REGACK,
    REGISTER,
    SnClient,
    acknowledgement,
    connect,
    message,
    number,
    publish,
    subscribe,
)
from tests.support.nats import NatsServer, free_port

NewToken = Callable[[], str]


async def prove(client: SnClient, cluster: Cluster, token: str) -> None:
    """Have the client answer a REGISTER."""
    await client.subscribe(f"kp1/app_v1/dcx/{token}/+/status", qos=0)
    await cluster.connectivity("connected", token)
    await cluster.push(token, b"", resourcePath="/prove")
    kind, body = await client.receive()
    assert kind == REGISTER
    topic_id, message_id = (int.from_bytes(body[at : at + 2], "big") for at in (0, 2))
    assert (await client.ask(acknowledgement(REGACK, topic_id, message_id)))[0] == PUBLISH


async def test_clients_beyond_the_bound(
    shared_nats: NatsServer, cluster: Cluster, new_token: NewToken
) -> None:
    tokens = [new_token() for _ in range(10)]
    with SnGateway(shared_nats.url, {"peers": 8}) as gateway:
        clients = [SnClient(gateway.port) for _ in tokens]
        for client, token in zip(clients[:8], tokens, strict=False):
            await client.connect(token)
        # The one that has been silent for longest must go.
        await clients[8].connect(tokens[8])
        assert await clients[0].receive() == (DISCONNECT, b"")
        assert gateway.count("events", "closed", "mqtt_sn_evicted") == 1
        # Clients that have proved their addresses stay, and a new one is told of the congestion.
        for client, token in zip(clients[1:9], tokens[1:9], strict=True):
            await prove(client, cluster, token)
        assert await clients[9].ask(connect(tokens[9])) == (CONNACK, bytes([CONGESTION]))
        assert gateway.count("events", "refused", "mqtt_sn_too_many_clients") == 1
        assert await clients[8].ask(message(DISCONNECT)) == (DISCONNECT, b"")
        await clients[9].connect(tokens[9])
        # Publishers without a connection have an eighth of the places: one.
        publishers = [SnClient(gateway.port) for _ in range(2)]
        for each in publishers:
            each.send(publish(3, b"{}", kind=PREDEFINED, qos=-1))
        await until(lambda: gateway.count("events", "closed", "mqtt_sn_evicted") == 2, "the second publisher")
        for client in [*clients, *publishers]:
            client.close()
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log


def is_stopped(pid: int) -> bool:
    """Return whether all threads of a process have stopped, which takes a moment after SIGSTOP."""
    states = [
        path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return set(states) == {"T"}


async def test_congestion_when_nats_is_away(nats_server: NatsServer, new_token: NewToken) -> None:
    changes = {"retry-timeout": 30}
    with (
        SnGateway(nats_server.url, changes, nats={"max-pending-bytes": 65536}) as gateway,
        SnClient(gateway.port) as device,
    ):
        async with Cluster(nats_server.url, "dcx") as cluster:
            await device.connect(new_token(), duration=600)
            os.kill(nats_server.pid, signal.SIGSTOP)
            await until(lambda: is_stopped(nats_server.pid), "the stop of NATS")
            try:
                # Of the sixteen that may wait, none is acknowledged; the next is refused.
                for number_ in range(1, 17):
                    device.send(publish(1, b"x" * 1000, qos=1, message_id=number_, kind=PREDEFINED))
                answer = await device.ask(publish(1, b"y", qos=1, message_id=17, kind=PREDEFINED))
                assert answer == (PUBACK, number(1) + number(17) + bytes([CONGESTION]))
                # The backlog is full: QoS 0 is dropped, SUBSCRIBE is refused, PINGREQ is answered.
                # The kernel's buffers of the connection to NATS may first take some of them.
                for _ in range(200):
                    for _ in range(100):
                        device.send(publish(1, b"z" * 1000, kind=PREDEFINED))
                    if (await device.ask(subscribe(5, "a/b")))[1][-1] == CONGESTION:
                        break
                else:
                    raise AssertionError("no congestion")
                await until(
                    lambda: gateway.count("events", "dropped", "mqtt_sn_congestion") > 0, "a dropped message"
                )
                assert await device.ask(message(PINGREQ)) == (PINGRESP, b"")
            finally:
                os.kill(nats_server.pid, signal.SIGCONT)
            acknowledged = {(await device.receive())[1] for _ in range(16)}
            assert acknowledged == {number(1) + number(each) + b"\0" for each in range(1, 17)}
            assert (await device.ask(publish(1, b"y", qos=1, message_id=17, kind=PREDEFINED)))[1][-1] == 0
            assert len(await cluster.next_requests(17)) >= 17
            assert "Traceback" not in gateway.log


async def test_an_unproved_address_gets_little(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    """Pushes to a forged address: at most 256 bytes, and three times what it has sent."""
    token = new_token()
    await device.connect(token)
    await device.subscribe(2)
    await cluster.connectivity("connected", token)
    sent = len(connect(token)) + len(subscribe(9, 2))
    for _ in range(8):
        await cluster.push(token, b"x" * 250, resourcePath="/push")
    received = []
    while (datagram := await device.raw())[1] != REGISTER:
        received.append(datagram)
    again = await device.raw()  # the REGISTER is repeated
    assert again == datagram
    assert sum(map(len, received)) + len(datagram) <= 256 + 3 * sent
    kind, body = await device.ask(
        acknowledgement(REGACK, int.from_bytes(datagram[2:4], "big"), int.from_bytes(datagram[4:6], "big"))
    )
    while kind == REGISTER:  # one that was on its way
        kind, body = await device.receive()
    assert (kind, body[5:]) == (PUBLISH, b"x" * 250)


async def test_any_bytes_leave_other_clients_alone(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    draw = random.Random(20261128)
    seeds = [
        connect("x"), connect("x", flags=12), message(7, b"\0a"), message(9, b"m"), message(10, bytes(5)),
        publish(1, b"x", qos=1, message_id=1, kind=PREDEFINED), publish(1, b"x", qos=2, message_id=1, kind=PREDEFINED),
        subscribe(1, "a/#"), message(0x18, b"\0\1"), message(0x16, b"x"), message(0x1A, b"\0a"), message(0x1C, b"a"),
        acknowledgement(11, 1, 1), acknowledgement(13, 1, 1, 2), message(15, b"\0\1"), message(16, b"\0\1"),
        message(14, b"\0\1"), b"\x04\xfe\0a\x02\x16", message(1, b"\0"),
    ]  # fmt: skip
    with SnClient(sn.port) as hostile:
        for count in range(3000):
            data = bytearray(draw.choice(seeds))
            for _ in range(draw.randrange(3)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            hostile.send(bytes(data))
            if count % 50 == 0:
                assert await device.ask(message(PINGREQ)) == (PINGRESP, b"")
    device.send(publish(1, b"still here", kind=PREDEFINED))
    await until(
        lambda: any(each.fields["payload"] == b"still here" for each in cluster.requests), "the message"
    )


async def test_clients_are_told_that_the_gateway_stops(
    shared_nats: NatsServer, cluster: Cluster, new_token: NewToken
) -> None:
    tokens = new_token(), new_token()
    gateway = SnGateway(shared_nats.url)
    with gateway, SnClient(gateway.port) as awake, SnClient(gateway.port) as asleep:
        await awake.connect(tokens[0])
        await asleep.connect(tokens[1])
        await asleep.sleep(60)
        assert await asyncio.to_thread(gateway.stop) == 0
        assert await awake.receive() == (DISCONNECT, b"")
        await asleep.silence()
        assert "Traceback" not in gateway.log


async def test_over_dtls_with_a_pre_shared_key(
    shared_nats: NatsServer, cluster: Cluster, new_token: NewToken, tmp_path: Path
) -> None:
    keys = tmp_path / "psk.yml"
    keys.write_text(f"keys:\n  {IDENTITY}: {KEY.hex()}\n")
    port, token = free_port(), new_token()
    section = {"enabled": True, "port": port, "psk-file": str(keys)}
    with SnGateway(shared_nats.url, {"enabled": False, "dtls": section}) as gateway:
        client = DtlsClient(port)
        await client.handshake()
        client.send(connect(token, flags=0))
        assert await client.receive() == message(CONNACK, b"\0")
        client.send(publish(1, b"{}", qos=1, message_id=1, kind=PREDEFINED))
        assert await client.receive() == acknowledgement(PUBACK, 1, 1)
        assert (await cluster.request()).fields["endpointId"] == token
        # Another session of the same key takes over, from another address, and wakes the client up.
        client.send(message(DISCONNECT, number(60)))
        assert await client.receive() == message(DISCONNECT)
        other = DtlsClient(port)
        await other.handshake()
        other.send(message(PINGREQ, token.encode()))
        assert await other.receive() == message(PINGRESP)
        other.close()
        client.close()
        assert gateway.count("connections", "mqtt-sn") == 1
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log


async def test_without_connect_a_certificate_confines_to_its_tenant(
    shared_nats: NatsServer, cluster: Cluster, tmp_path: Path
) -> None:
    """QoS -1 over DTLS: a device of another tenant is refused, one of the application's tenant is not."""
    port = free_port()
    server = Authority(tmp_path, "server-ca")
    authorities = {name: Authority(tmp_path, name) for name in ("acme", "umbrella")}
    issued = server.issue("gateway")
    section = {
        "enabled": True,
        "port": port,
        "cert-file": str(issued.cert_file),
        "key-file": str(issued.key_file),
        "client-certificate": "required",
        "tenants": {name: {"ca-file": str(each.file)} for name, each in authorities.items()},
    }
    gateway = SnGateway(shared_nats.url, {"enabled": False, "dtls": section})
    owner = {"kaa": {"applications": {"app": {"tenant": "acme"}}}}
    gateway.config_path.write_text(json.dumps(gateway.document_with(owner)))
    with gateway:
        for name in ("umbrella", "acme"):
            device = DtlsClient(
                port, issued=authorities[name].issue(f"device of {name}"), ca_file=server.file
            )
            await device.handshake()
            device.send(publish(3, name.encode(), kind=PREDEFINED, qos=-1))
            if name == "umbrella":
                await until(lambda: gateway.count("events", "refused", "wrong_tenant") == 1, "the refusal")
            else:
                assert (await cluster.request()).fields["payload"] == b"acme"
            device.close()
        assert gateway.count("events", "refused", "wrong_tenant") == 1
