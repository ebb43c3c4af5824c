"""`StoredReceiver`: messages of a stream and the ends of pull requests, as a server writes them on the link.

Source: NATS documentation, "JetStream wire API reference", pull consumers.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kaa_ext import Extension, Request
from kaa_ext.sdk.receivers import StoredReceiver
from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import encode_client_data

from tests.support.esp import until
from tests.support.fake_nats import FakeConnection, FakeNats
from tests.support.links import connecting, up
from tests.unit.ext.sdk.test_extension import extension

EXPECTED, LOW = 10, 3
ACK = "$JS.ACK.stream.consumer.1.7.7.1700000000000000000.0"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Delivery:
    """A delivery that is only acknowledged."""

    is_last_try = False

    def __init__(self, subject: str, acknowledged: list[str]) -> None:
        self.subject = subject
        self._acknowledged = acknowledged

    def done(self) -> None:
        self._acknowledged.append(self.subject)


class Stream:
    """A receiver of `EXPECTED` messages on a link to a server that a test plays, and all that came of it."""

    def __init__(self, service: Extension, published: list[Any]) -> None:
        self.requests: list[Request] = []
        self.acknowledged: list[str] = []
        self.statuses: list[tuple[str, str, int]] = []
        self.lows = 0
        self.published = published
        self.server: FakeConnection
        self.sid = 0

        @service.handler("*")
        def note(request: Request) -> None:
            self.requests.append(request)

        self.receiver = StoredReceiver(
            service._dispatcher,
            lambda subject: Delivery(subject, self.acknowledged),
            lambda *status: self.statuses.append(status),
            self._low,
            LOW,
        )
        self.receiver.expected = EXPECTED

    def _low(self) -> None:
        self.lows += 1

    async def send(self, headers: str, payload: bytes = b"") -> None:
        """Send a message with a header block."""
        block = f"NATS/1.0{headers}\r\n\r\n".encode()
        line = f"HMSG inbox {self.sid} {ACK} {len(block)} {len(block) + len(payload)}\r\n"
        await self.server.send(line.encode() + block + payload + b"\r\n")


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    service, connection = extension()
    found = Stream(service, connection.published)
    async with FakeNats() as nats, connecting(nats.url) as (link, _):
        found.sid = link.subscribe("inbox", found.receiver)
        found.server = await nats.admitted()
        await up(link)
        yield found


def datum(request_id: int | None = 1) -> bytes:
    return encode_client_data("cid", now_ms(), 0, "app-v1", "ep", "/json", request_id, b"{}")


async def test_a_message_is_handled_answered_and_acknowledged(stream: Stream) -> None:
    reply = "kaa.v1.replica.gw.esp.ExtensionData"
    headers = f"\r\n{subjects.REPLY_TO_HEADER}: {reply}\r\ntraceparent: {TRACE}\r\nOther: x"
    await stream.send(headers, datum())
    await until(lambda: stream.acknowledged == [ACK], "the acknowledgement")
    assert stream.requests[0].trace_parent == TRACE
    assert stream.published[0][0] == reply
    assert stream.receiver.expected == EXPECTED - 1
    assert not stream.statuses


async def test_a_message_without_reply_to_or_header(stream: Stream) -> None:
    payload = datum(None)
    await stream.server.send(f"MSG inbox {stream.sid} {ACK} {len(payload)}\r\n".encode() + payload + b"\r\n")
    await until(lambda: stream.acknowledged == [ACK], "the acknowledgement")
    assert stream.requests[0].trace_parent is None
    assert not stream.published


async def test_what_is_not_client_data_is_acknowledged_and_counted(stream: Stream) -> None:
    await stream.send("\r\nA: b", b"\xff\xff")
    await until(lambda: stream.acknowledged == [ACK], "the acknowledgement")
    assert not stream.requests


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (" 404 No Messages", ("404", "No Messages", EXPECTED)),
        (
            " 408 Request Timeout\r\nNats-Pending-Messages: 4\r\nNats-Pending-Bytes: 0",
            ("408", "Request Timeout", 4),
        ),
        (" 408 Request Timeout\r\nNats-Pending-Messages: many", ("408", "Request Timeout", EXPECTED)),
        (" 409 Consumer Deleted", ("409", "Consumer Deleted", EXPECTED)),
        (" 503", ("503", "JetStream is not available", EXPECTED)),
    ],
)
async def test_the_end_of_a_pull_request_is_passed_on(
    stream: Stream, headers: str, status: tuple[str, str, int]
) -> None:
    await stream.send(headers)
    await until(lambda: bool(stream.statuses), "the status")
    assert stream.statuses == [status]
    assert not stream.requests
    assert not stream.acknowledged


async def test_it_is_said_once_that_few_messages_are_still_to_come(stream: Stream) -> None:
    for number in range(EXPECTED + 2):
        await stream.send("\r\nA: b", datum())
        await until(lambda number=number: len(stream.acknowledged) == number + 1, "one")  # type: ignore[misc]
        assert stream.receiver.expected == max(EXPECTED - number - 1, 0)
        assert stream.lows == int(number + 1 >= EXPECTED - LOW)


async def test_messages_cut_at_any_byte_are_whole(stream: Stream) -> None:
    block = f"NATS/1.0\r\ntraceparent: {TRACE}\r\n\r\n".encode()
    payload = datum()
    data = f"HMSG inbox {stream.sid} {ACK} {len(block)} {len(block) + len(payload)}\r\n".encode()
    data += block + payload + b"\r\n"
    for size in (1, 7, len(data) - 1):
        count = len(stream.acknowledged)
        for at in range(0, len(data), size):
            await stream.server.send(data[at : at + size])
            await asyncio.sleep(0)
        await until(lambda count=count: len(stream.acknowledged) == count + 1, "it")  # type: ignore[misc]
    assert [request.trace_parent for request in stream.requests] == [TRACE] * 3
