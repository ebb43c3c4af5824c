"""Lanes against a server of the test's own, which says what no real one can be made to say at will."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_gateway.app.worker import Worker
from kaa_gateway.bus.durable import Failure, read_answer
from kaa_gateway.config import ExtensionInstance
from kaa_gateway.config.keys import Durable

from tests.support.esp import until
from tests.support.fake_nats import FakeConnection, FakeNats
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.worker import EXTENSION, configuration, running_worker

STREAM = "kaa-dcx"
FULL = {
    "error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"},
    "stream": STREAM,
    "seq": 0,
}


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ({"stream": STREAM, "seq": 1}, None),
        ({"stream": STREAM, "domain": "hub", "seq": 7, "duplicate": True}, None),
        (FULL, Failure("maximum bytes exceeded", False)),
        (
            {"error": {"err_code": 10054, "description": "message size exceeds"}},
            Failure("message size exceeds", True),
        ),
        ({"stream": "other", "seq": 1}, Failure("an answer of another stream", False)),
        ({"stream": STREAM, "seq": 0}, Failure("an answer of another stream", False)),
        ({"stream": STREAM, "seq": "1"}, Failure("an answer of another stream", False)),
        ({}, Failure("an answer of another stream", False)),
    ],
)
def test_what_an_answer_of_jetstream_says(answer: dict[str, Any], failure: Failure | None) -> None:
    assert read_answer(json.dumps(answer).encode(), STREAM) == failure


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b'{"stream":1', bytes(range(256)), b'{"\xff":1}', b'{"a":' + b"[" * 100_000],
)
def test_what_is_no_answer_of_jetstream(answer: bytes) -> None:
    assert read_answer(answer, STREAM) == Failure("an answer that is no PubAck", False)


class Stream:
    """The stream's side of one connection: takes publications and answers them."""

    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection

    async def publication(self) -> tuple[str, bytes]:
        """The next HPUB: its reply subject and its header."""
        while (line := await self._connection.line()) == "PING":
            await self._connection.send(b"PONG\r\n")
        word, subject, reply, header_size, size = line.split(" ")
        assert (word, subject) == ("HPUB", "kaa.v1.service.dcx.esp.ClientData")
        data = await self._connection.read(int(size) + 2)
        return reply, data[: int(header_size)]

    async def confirm(self) -> None:
        """Confirm a block of the link."""
        assert await self._connection.line() == "PING"
        await self._connection.send(b"PONG\r\n")

    async def answer(self, reply: str, **answer: Any) -> None:
        data = json.dumps(answer or {"stream": STREAM, "seq": 1}, separators=(",", ":")).encode()
        await self._connection.send(b"MSG %b 3 %d\r\n%b\r\n" % (reply.encode(), len(data), data))


@asynccontextmanager
async def worker_and_stream(nats: FakeNats) -> AsyncIterator[tuple[Worker, Stream]]:
    durable = msgspec.structs.replace(
        configuration(nats.url),
        extension_instances={EXTENSION: ExtensionInstance(name=EXTENSION, durable=True)},
        durable=Durable(ack_timeout=30),
    )

    async def nothing(self: object) -> None:
        """In place of JetStream's API, which this server has not."""

    with (
        patch("tests.support.worker.configuration", lambda *_, **__: durable),
        patch("kaa_gateway.app.nats_connections.Streams.ensure", nothing),
    ):
        running = running_worker(nats.url)
        entering = asyncio.create_task(running.__aenter__())
        connection = await nats.admitted()
        worker = await entering
        try:
            yield worker, Stream(connection)
        finally:
            await running.__aexit__(None, None, None)


async def send(device: MqttPeer, *numbers: int) -> None:
    await device.send(*(Publish("kp1/app_v1/dcx/thing/json", b"%d" % n, 1, n) for n in numbers))


async def test_each_pub_ack_is_that_of_the_publication_it_names() -> None:
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        await send(device, 1, 2, 3)
        replies = [(await stream.publication())[0] for _ in range(3)]
        assert len(set(replies)) == 3
        await stream.answer(replies[1])
        assert await device.expect(Puback) == Puback(2), "the first may have been lost with its leader"
        # Another life of this replica, another lane, a number that was never given, one that is done.
        prefix = replies[0].rpartition(".")[0]
        for last in ("00000000" + replies[0][-10:], replies[0][-18:-10] + "01" + "00000000"):
            await stream.answer(f"{prefix}.{last}")
        await stream.answer(replies[0][:-8] + "7fffffff")
        await stream.answer(replies[1])
        await stream.answer(replies[2])
        assert await device.expect(Puback) == Puback(3)
        await stream.answer(replies[0])
        assert await device.expect(Puback) == Puback(1)
        lane = worker.durable.lanes[0]
        assert (lane.stored, lane.waiting(), lane.backlog()) == (3, 0, 0)


async def test_a_refused_publication_is_tried_alone_and_the_rest_follows() -> None:
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        await send(device, 1, 2, 3)
        sent = [await stream.publication() for _ in range(3)]
        for reply, _ in sent:
            await stream.answer(reply, **FULL)
        lane = worker.durable.lanes[0]
        await until(lambda: lane.stalled, "the refusal")
        reply, header = await stream.publication()
        assert (reply, header) == sent[0], "the same message ID: the stream may have it after all"
        await stream.answer(reply)
        assert await device.expect(Puback) == Puback(1)
        assert [await stream.publication() for _ in range(2)] == sent[1:]
        for reply, _ in sent[1:]:
            await stream.answer(reply)
        assert [await device.expect(Puback), await device.expect(Puback)] == [Puback(2), Puback(3)]
        assert (lane.refusals, lane.resent, lane.stalled) == (3, 3, False)


class RecordedTrace:
    """What a lane tells of a message that is traced."""

    field = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"

    def __init__(self) -> None:
        self.told: list[str] = []

    def confirmed(self) -> None:
        self.told.append("confirmed")

    def failed(self, reason: str) -> None:
        self.told.append(reason)


class EverySecond:
    """A tracer of every second message."""

    def __init__(self) -> None:
        self.traces: dict[bytes, Any] = {}

    def gap(self) -> int:
        return 2

    def begin(self, correlation_id: bytes, *_: object) -> Any:
        trace = self.traces[correlation_id] = RecordedTrace()
        return trace


async def test_a_traced_publication_carries_its_trace_in_the_header_and_is_told_of_its_end() -> None:
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        tracer = EverySecond()
        worker.uplink.set_tracer(tracer)
        worker.downlink.set_traces(tracer.traces)
        await send(device, 1, 2, 3, 4)
        sent = [await stream.publication() for _ in range(4)]
        assert [header.count(b"\r\n") for _, header in sent] == [4, 5, 4, 5]
        for (_, header), (_, before) in zip(sent[1::2], sent[::2], strict=True):
            lines, lines_before = header.split(b"\r\n"), before.split(b"\r\n")
            assert lines[1].startswith(b"Nats-Msg-Id: ")
            assert lines[0] == lines_before[0] == b"NATS/1.0"
            assert lines[2] == lines_before[2]
            assert lines[3] + b"\r\n" == RecordedTrace.field
            assert lines[4:] == [b"", b""]
            assert lines[1].removeprefix(b"Nats-Msg-Id: ") in tracer.traces
        stored, too_large = tracer.traces.values()
        for reply, _ in sent[:3]:
            await stream.answer(reply)
        for number in (1, 2, 3):
            assert await device.expect(Puback) == Puback(number)
        assert stored.told == ["confirmed"]
        error = {"err_code": 10054, "description": "message size exceeds"}
        await stream.answer(sent[3][0], error=error, stream=STREAM, seq=0)
        assert (await device.expect(Publish)).topic == "kp1/app_v1/dcx/thing/json/error"
        assert await device.expect(Puback) == Puback(4)
        assert too_large.told[0] == "not_storable"
        assert worker.durable.lanes[0].waiting() == 0


# ---------------------------------------------------------------- the payload limit

SMALL, LARGE = b"s" * 100, b"L" * 20_000
LIMIT = 4096


async def send_sizes(device: MqttPeer, *payloads: bytes) -> None:
    await device.send(
        *(
            Publish("kp1/app_v1/dcx/thing/json", payload, 1, number)
            for number, payload in enumerate(payloads, 1)
        )
    )


async def expect_too_large(device: MqttPeer, number: int) -> None:
    """The error that tells of a message that is too large, and its acknowledgement behind it."""
    error = await device.expect(Publish)
    assert error.topic == "kp1/app_v1/dcx/thing/json/error"
    assert json.loads(error.payload)["statusCode"] == 413
    assert await device.expect(Puback) == Puback(number)


async def test_what_waits_while_the_limit_falls_is_413_and_the_rest_is_stored() -> None:
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        await send_sizes(device, SMALL)
        first, _ = await stream.publication()
        await stream.answer(first, **FULL)
        lane = worker.durable.lanes[0]
        await until(lambda: lane.stalled, "the refusal")
        await device.send(
            Publish("kp1/app_v1/dcx/thing/json", LARGE, 1, 2),
            Publish("kp1/app_v1/dcx/thing/json", SMALL, 1, 3),
        )
        await until(lambda: lane.waiting() == 3, "the messages")
        await stream._connection.send_info(max_payload=LIMIT)
        await expect_too_large(device, 2)
        for number in (1, 3):
            reply, _ = await stream.publication()
            await stream.answer(reply)
            assert await device.expect(Puback) == Puback(number)
        assert (lane.waiting(), lane.backlog(), lane.abandoned) == (0, 0, 1)


async def test_what_is_in_flight_while_the_limit_falls_may_be_stored() -> None:
    """The server has taken it: no PUBACK before it says so, and no error when it does."""
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        await send_sizes(device, LARGE, SMALL)
        replies = [(await stream.publication())[0] for _ in range(2)]
        await stream._connection.send_info(max_payload=LIMIT)
        await until(lambda: worker.link.payload_max == LIMIT, "the limit")
        await stream.answer(replies[0])
        assert await device.expect(Puback) == Puback(1)
        await stream.answer(replies[1])
        assert await device.expect(Puback) == Puback(2)
        assert worker.durable.lanes[0].abandoned == 0


async def test_what_was_in_flight_and_refused_is_not_sent_again_over_the_limit() -> None:
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        await send_sizes(device, SMALL, LARGE, SMALL)
        replies = [(await stream.publication())[0] for _ in range(3)]
        await stream._connection.send_info(max_payload=LIMIT)
        await until(lambda: worker.link.payload_max == LIMIT, "the limit")
        await stream.answer(replies[0], **FULL)
        await expect_too_large(device, 2)
        for number, expected in ((1, replies[0]), (3, replies[2])):
            reply, _ = await stream.publication()
            assert reply == expected
            await stream.answer(reply)
            assert await device.expect(Puback) == Puback(number)


@pytest.mark.parametrize("told", ["in the first INFO", "in a second INFO", "by an error"])
async def test_a_publication_that_ended_a_connection_is_never_sent_again(told: str) -> None:
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        await send_sizes(device, SMALL, LARGE, SMALL)
        sent = [await stream.publication() for _ in range(3)]
        if told == "by an error":
            await stream._connection.send(b"-ERR 'Maximum Payload Violation'\r\n")
        stream._connection.close()
        connection = await nats.accept()
        if told == "in the first INFO":
            await connection.admit(max_payload=LIMIT)
        else:
            await connection.send_info()
            await connection.read_connect()
            if told == "in a second INFO":
                await connection.send_info(max_payload=LIMIT)
            await connection.send(b"PONG\r\n")
        await expect_too_large(device, 2)
        other = Stream(connection)
        assert [await other.publication() for _ in range(2)] == [sent[0], sent[2]]
        for number in (0, 2):
            await other.answer(sent[number][0])
            assert await device.expect(Puback) == Puback(number + 1)
        # A new message as large is refused before it is written.
        if told != "by an error":
            await device.send(Publish("kp1/app_v1/dcx/thing/json", LARGE, 1, 4))
            await other.confirm()
            await expect_too_large(device, 4)
        assert worker.durable.lanes[0].waiting() == 0


async def test_a_raised_limit_counts_at_once() -> None:
    async with (
        FakeNats() as nats,
        worker_and_stream(nats) as (worker, stream),
        mqtt_client(worker.ports["mqtt"]) as device,
    ):
        await stream._connection.send_info(max_payload=LIMIT)
        await until(lambda: worker.link.payload_max == LIMIT, "the limit")
        await send_sizes(device, LARGE)
        await stream.confirm()
        await expect_too_large(device, 1)
        await stream._connection.send_info(max_payload=100_000)
        await until(lambda: worker.link.payload_max == 100_000, "the other limit")
        await send_sizes(device, LARGE)
        reply, _ = await stream.publication()
        await stream.answer(reply)
        assert await device.expect(Puback) == Puback(1)
