"""The link against a scripted NATS server and, where one can be made to do it, a real one.

Its connections, addresses and credentials are in test_connector.py; the loss of them under load in
tests/e2e/test_nats_faults.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from kaa_bench.mqtt_packets import Pingreq, Pingresp, Puback, Publish, Pubrec
from kaa_gateway.app.worker import Worker
from kaa_gateway.bus import subjects
from structlog.testing import capture_logs

from tests.support import schemas
from tests.support.cluster import TO_INSTANCE, TO_REPLICA
from tests.support.esp import until
from tests.support.fake_nats import FakeConnection, FakeNats, Publication
from tests.support.gateway import INSTANCE
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.worker import EXTENSION, starting_worker

TOPIC = "kp1/app_v1/dcx/token/json"
SUBJECT = subjects.service(EXTENSION, "esp", subjects.CLIENT_DATA)
NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"


def payloads(block: list[Publication]) -> list[bytes]:
    return [schemas.decode("0004-client-data", each.payload)["payload"] for each in block]


@asynccontextmanager
async def linked(server: FakeNats, **nats: object) -> AsyncIterator[tuple[Worker, FakeConnection, MqttPeer]]:
    """A worker whose link `server` has admitted, and a device that is connected to it and known to it."""
    async with starting_worker(server.url, **nats) as (worker, start):
        connection = await server.admitted()
        await start
        async with mqtt_client(worker.ports["mqtt"]) as device:
            # The first message of a token waits for its identity, later ones do not.
            await device.send(Publish(TOPIC, b"first", 1, 100))
            assert payloads(await block_of(connection)) == [b"first"]
            await connection.send(b"PONG\r\n")
            assert (await device.expect(Puback)).packet_id == 100
            yield worker, connection, device


async def block_of(connection: FakeConnection) -> list[Publication]:
    """The next block that holds something; what the link asks while it is idle is answered."""
    while not (block := await connection.block()):
        await connection.send(b"PONG\r\n")
    return block


async def test_handshake() -> None:
    async with FakeNats() as server, starting_worker(server.url) as (worker, start):
        connection = await server.accept()
        await connection.send_info()
        await connection.read_connect()
        assert {
            "verbose": False, "pedantic": False, "echo": False, "headers": True, "no_responders": True, "protocol": 1,
        }.items() <= connection.connect.items()  # fmt: skip
        assert INSTANCE in connection.connect["name"]
        assert connection.subscriptions == [f"SUB {TO_REPLICA} 1", f"SUB {TO_INSTANCE} 2"], "no queue group"
        assert not worker.link.ready
        assert "mqtt" not in worker.ports, "devices are served before NATS has confirmed the subscriptions"
        await connection.send(b"PONG\r\n")
        await start
        assert worker.link.ready
        assert worker.ports["mqtt"]


async def test_handshake_in_single_bytes() -> None:
    async with FakeNats() as server, starting_worker(server.url) as (_, start):
        connection = await server.accept()
        for byte in b'INFO {"headers":true,"max_payload":1048576}\r\n':
            await connection.send(bytes([byte]))
        await connection.read_connect()
        for byte in b"PONG\r\n":
            await connection.send(bytes([byte]))
        await start


async def test_acknowledges_what_nats_has_confirmed_and_nothing_before() -> None:
    async with FakeNats() as server, linked(server) as (worker, connection, device):
        await device.send(Publish(TOPIC, b"a", 1, 1), Publish(TOPIC, b"b", 2, 2), Publish(TOPIC, b"c", 0))
        assert payloads(await block_of(connection)) == [b"a", b"b", b"c"]
        await device.send(Publish(TOPIC, b"d", 1, 3))
        assert payloads(await block_of(connection)) == [b"d"]
        assert await device.until_pingresp() == []
        assert worker.link.backlog > 0

        await connection.send(b"PONG\r\n")
        assert [await device.receive() for _ in range(2)] == [Puback(1), Pubrec(2)]
        assert await device.until_pingresp() == [], "acknowledged with the PONG of an earlier block"
        await connection.send(b"PONG\r\n")
        assert await device.receive() == Puback(3)
        assert worker.link.backlog == 0


async def test_sends_again_what_was_not_confirmed_except_qos_0() -> None:
    async with FakeNats() as server, linked(server) as (worker, first, device):
        await device.send(Publish(TOPIC, b"1", 1, 1), Publish(TOPIC, b"0", 0), Publish(TOPIC, b"2", 2, 2))
        sent = await block_of(first)
        first.reset()

        second = await server.admitted()
        assert await block_of(second) == [sent[0], sent[2]], "the same bytes, so the same correlation IDs"
        assert (worker.link.publications_resent, worker.link.publications_abandoned) == (2, 1)
        second.reset()

        third = await server.admitted()
        assert await block_of(third) == [sent[0], sent[2]]
        assert await device.until_pingresp() == []
        await third.send(b"PONG\r\n")
        assert [await device.receive() for _ in range(2)] == [Puback(1), Pubrec(2)]
        assert worker.link.backlog == 0


async def test_what_comes_while_nats_is_away_is_sent_when_it_is_back() -> None:
    async with FakeNats() as server, linked(server) as (worker, first, device):
        first.close()
        await until(lambda: not worker.link.ready, "the loss")
        second = await server.accept()
        await device.send(Publish(TOPIC, b"0", 0), Publish(TOPIC, b"1", 1, 1))
        assert await device.until_pingresp() == []
        await second.admit()
        # QoS 0 too: it was never written, so it cannot arrive twice.
        assert payloads(await block_of(second)) == [b"0", b"1"]
        await second.send(b"PONG\r\n")
        assert await device.receive() == Puback(1)
        assert worker.link.publications_abandoned == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"PONG\r\n", "nats_unexpected_pong"),
        (b"HTTP/1.1 400 Bad Request\r\n", "nats_unknown_operation"),
        (b"MSG a 1 -5\r\n", "nats_malformed_msg"),
        (b"MSG a 1 3\r\nabcd\r\n", "nats_malformed_msg"),
        (b"MSG a 1 99999999\r\n", "nats_payload_too_large"),
        (b"MSG" + b" " * 8192, "nats_line_too_long"),
        (b"INFO {\r\n", "nats_malformed_info"),
        (b'INFO {"server_name":"\xff"}\r\n', "nats_malformed_info"),
        (b'INFO {"connect_urls":' + b"[" * 10_000 + b"\r\n", "nats_malformed_info"),
        (b"\r\n\r\n", "nats_unknown_operation"),
    ],
)
async def test_leaves_a_server_that_breaks_the_protocol(said: bytes, reason: str) -> None:
    async with FakeNats() as server, linked(server) as (worker, first, device):
        with capture_logs() as logs:
            await first.send(said)
            await first.closed()
            second = await server.admitted()
        assert [entry["reason"] for entry in logs if "broke the protocol" in entry["event"]] == [reason]
        # Nothing of the bad stream is left over: the next connection works.
        await device.send(Publish(TOPIC, b"after", 1, 7))
        assert payloads(await block_of(second)) == [b"after"]
        await second.send(b"PONG\r\n")
        assert await device.receive() == Puback(7)
        assert worker.link.connects == 2


async def test_an_error_of_a_connection_that_stands_is_logged_once_and_survived() -> None:
    async with FakeNats() as server, linked(server) as (worker, connection, device):
        with capture_logs() as logs:
            error = b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"
            await connection.send(error + b"PING\r\n" + error + b"+OK\r\n")
            assert await connection.line() == "PONG"
            await device.send(Publish(TOPIC, b"a", 1, 1))
            await block_of(connection)
            await connection.send(b"PONG\r\n")
            assert await device.receive() == Puback(1)
        assert [entry["error"] for entry in logs if "error" in entry] == [
            'Permissions Violation for Publish to "x"'
        ]
        assert worker.link.connects == 1


async def test_gives_up_a_server_that_answers_no_ping_and_loses_nothing() -> None:
    async with FakeNats() as server, linked(server, ping_timeout=0.2) as (worker, first, device):
        await device.send(Publish(TOPIC, b"a", 1, 1))
        sent = await block_of(first)
        with capture_logs() as logs:
            second = await server.admitted()
        assert "no answer to PING" in next(e["error"] for e in logs if e["event"] == "NATS connection lost")
        assert await block_of(second) == sent
        await second.send(b"PONG\r\n")
        assert await device.receive() == Puback(1)
        assert worker.link.ready


async def test_pings_a_server_that_it_has_nothing_to_tell() -> None:
    async with FakeNats() as server, starting_worker(server.url, ping_timeout=0.2) as (_, start):
        first = await server.admitted()
        await start
        assert await first.line() == "PING"
        # Not answered: noticed without a single message.
        await server.admitted()


async def test_respects_max_payload_as_each_info_tells_it() -> None:
    async with FakeNats() as server, starting_worker(server.url) as (worker, start):
        connection = await server.admitted(max_payload=1024)
        await start
        async with mqtt_client(worker.ports["mqtt"]) as device:
            await device.send(Publish(f"{TOPIC}/1", bytes(2048), 1, 1), Publish(f"{TOPIC}/2", b"small", 1, 2))
            assert payloads(await block_of(connection)) == [b"small"]
            await connection.send(b"PONG\r\n")
            refusal = await device.expect(Publish)
            assert (refusal.topic, b"413" in refusal.payload) == (f"{TOPIC}/1/error", True)
            assert [await device.receive() for _ in range(2)] == [Puback(1), Puback(2)]

            await connection.send_info(max_payload=4096)
            await connection.send(b"PING\r\n")
            assert await connection.line() == "PONG"
            await device.send(Publish(TOPIC, bytes(2048), 1, 3))
            assert payloads(await block_of(connection)) == [bytes(2048)]
        assert worker.link.payload_max == 4096


async def test_no_responders_of_a_server_that_does_not_name_the_subject() -> None:
    """Servers before 2.12: the report is believed if the block has only one subject."""
    async with FakeNats() as server, linked(server) as (worker, connection, device):
        await device.send(Publish(f"{TOPIC}/1", b"", 1, 1), Publish(f"{TOPIC}/2", b"", 1, 2))
        (first, second) = await block_of(connection)
        size = len(NO_RESPONDERS)
        report = f"HMSG {first.reply} 1 {size} {size}\r\n".encode() + NO_RESPONDERS + b"\r\n"
        await connection.send(report + report + report + b"PONG\r\n")
        received = [await device.receive() for _ in range(4)]
        errors = [packet.topic for packet in received if isinstance(packet, Publish)]
        assert errors == [f"{TOPIC}/1/error", f"{TOPIC}/2/error"]
        assert [packet for packet in received if isinstance(packet, Puback)] == [Puback(1), Puback(2)]
        assert first.subject == second.subject == SUBJECT
        assert worker.link.unattributed_no_responders == 1, "the third report is for nobody"


async def test_no_responders_of_a_subject_that_the_account_maps_to_another() -> None:
    """The report names what it was mapped to: it is believed if the block has only one subject."""
    report_of = b"NATS/1.0 503\r\nNats-Subject: kaa.v1.service.mapped.esp.ClientData\r\n\r\n"
    async with FakeNats() as server, linked(server) as (worker, connection, device):
        await device.send(Publish(f"{TOPIC}/1", b"", 1, 1), Publish(f"{TOPIC}/2", b"", 1, 2))
        (first, _) = await block_of(connection)
        size = len(report_of)
        report = f"HMSG {first.reply} 1 {size} {size}\r\n".encode() + report_of + b"\r\n"
        await connection.send(report + report + report + b"PONG\r\n")
        received = [await device.receive() for _ in range(4)]
        errors = [packet.topic for packet in received if isinstance(packet, Publish)]
        assert errors == [f"{TOPIC}/1/error", f"{TOPIC}/2/error"]
        assert [packet for packet in received if isinstance(packet, Puback)] == [Puback(1), Puback(2)]
        assert worker.link.unattributed_no_responders == 1, "the third report is for nobody"


async def test_readers_pause_at_the_watermark_and_resume() -> None:
    pending_max, size, count = 64 * 1024, 1024, 1000
    async with FakeNats() as server, linked(server, max_pending_bytes=pending_max) as (worker, first, device):
        sending = asyncio.create_task(
            device.send(*(Publish(TOPIC, bytes(size), 1, number) for number in range(1, count + 1)))
        )
        await until(lambda: worker.link.full, "the watermark")
        await sending
        # The device goes on, NATS does not: what is kept stays at the watermark, and one message beyond it.
        for _ in range(5):
            await device.send(Pingreq())
            await asyncio.sleep(0.02)
            assert pending_max < worker.link.backlog < pending_max + 2 * size
        # The loss of the connection changes nothing about that.
        first.reset()
        await until(lambda: not worker.link.ready, "the loss")
        assert worker.link.backlog < pending_max + 2 * size
        second = await server.admitted()
        received = 0
        while received < count:
            received += len(await second.block())
            await second.send(b"PONG\r\n")
        acknowledged: list[int] = []
        while len(acknowledged) < count:
            packet = await device.receive()
            assert isinstance(packet, Puback | Pingresp)
            if isinstance(packet, Puback):
                acknowledged.append(packet.packet_id)
        assert acknowledged == list(range(1, count + 1))
        assert not worker.link.full


async def test_a_connection_that_ends_within_a_message_leaves_nothing_behind() -> None:
    async with FakeNats() as server, linked(server) as (worker, first, device):
        await first.send(f"MSG {TO_REPLICA} 1 100\r\nhalf of".encode())
        first.close()
        second = await server.admitted()
        await device.send(Publish(TOPIC, b"a", 1, 1))
        await block_of(second)
        await second.send(b"PONG\r\n")
        assert await device.receive() == Puback(1)
        assert worker.counters.by_reason().get(("closed", "nats_malformed_msg")) is None


async def test_drain_waits_for_what_was_published_and_not_for_what_follows() -> None:
    async with FakeNats() as server, linked(server) as (worker, connection, device):
        await device.send(Publish(TOPIC, b"before", 1, 1))
        await block_of(connection)
        drain = asyncio.create_task(worker.link.drain())
        await asyncio.sleep(0.05)
        assert not drain.done()
        await device.send(Publish(TOPIC, b"after", 1, 2))
        await block_of(connection)
        await connection.send(b"PONG\r\n")
        # A device that goes on and on must not hold up the end.
        await asyncio.wait_for(drain, 10)
        assert worker.link.backlog > 0
