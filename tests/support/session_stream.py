"""JetStream with the stream `<instance>-sessions`, behind one connection of a worker, with what a test makes it say.

It keeps what it is sent like the real one, for a worker whose link is tests/support/fake_nats.py. The real one is in
tests/e2e/fleet/test_durable_sessions.py.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
from kaa_gateway.app.worker import Worker
from kaa_gateway.bus import subjects
from kaa_gateway.fleet import stored_messages
from kaa_gateway.fleet.stored_messages import Stored
from kaa_gateway.wire.esp import encode_extension_data

from tests.support.fake_nats import FakeConnection, FakeNats
from tests.support.gateway import INSTANCE
from tests.support.worker import configuration, running_worker_of

SUBJECT = stored_messages.stream_subject(INSTANCE, "")
CLAIM = subjects.service(INSTANCE, "session", "")
LOOKUP = f"$JS.API.STREAM.MSG.GET.{stored_messages.stream_of(INSTANCE)}"
NOTHING = {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}
WRONG_SEQUENCE = {
    "error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 1"},
    "stream": stored_messages.stream_of(INSTANCE),
    "seq": 0,
}
NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"


class Write(NamedTuple):
    """A message for the stream as it came."""

    name: str
    header: dict[str, str]
    message: Stored


class SessionStream:
    """What the stream holds, by the name of the session, and what was asked of it."""

    def __init__(self) -> None:
        self.held: dict[str, list[tuple[int, bytes]]] = {}
        self.sequence = 0
        self.writes: list[Write] = []
        self.lookups: list[dict[str, Any]] = []
        self.on_write: Callable[[Write], bytes | None] | None = None
        """Returns what is answered to a message, which is not kept then; b"" is no answer, and None the usual one."""
        self.on_lookup: Callable[[dict[str, Any]], bytes | None] | None = None
        """The same for a request for a message."""
        self.present = True
        """Whether somebody is there to answer."""
        self._connection: FakeConnection | None = None

    def put(self, name: str, message: Stored | bytes) -> int:
        """Let the stream hold a message of another worker, behind what it has of the session."""
        self.sequence += 1
        data = message if isinstance(message, bytes) else stored_messages.encode(message)
        self.held.setdefault(name, []).append((self.sequence, data))
        return self.sequence

    def messages(self, name: str) -> list[Stored | None]:
        """Return what it holds of a session."""
        return [stored_messages.decode(data) for _, data in self.held.get(name, [])]

    def names(self) -> list[str]:
        """Return the sessions that it holds something of."""
        return [name for name, held in self.held.items() if held]

    async def serve(self, connection: FakeConnection) -> None:
        """Answer a worker until its connection ends."""
        self._connection = connection
        while line := await connection.any_line():
            word, *fields = line.split(" ")
            if word == "PING":
                await connection.send(b"PONG\r\n")
            elif word == "SUB":
                connection.subscriptions.append(line)
            elif word in {"PUB", "HPUB"}:
                data = (await connection.read(int(fields[-1]) + 2))[:-2]
                if fields[0].startswith(CLAIM) and len(fields) > 2:
                    await self._answer_nobody(fields[1])
                elif fields[0].startswith(SUBJECT):
                    size = int(fields[2])
                    await self._answer(fields[1], self._write(fields[0], data[:size], data[size:]))
                elif fields[0] == LOOKUP:
                    await self._answer(fields[1], self._look_up(json.loads(data)))

    async def push(self, token: str, payload: bytes) -> None:
        """Push to an endpoint."""
        assert self._connection is not None
        subject = subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA)
        datum = encode_extension_data("", 0, 0, "app_v1", "dcx", token, "/json", None, payload, 200)
        sid = self._sid_of(subject)
        await self._connection.send(b"MSG %b %b %d\r\n%b\r\n" % (subject.encode(), sid, len(datum), datum))

    def _sid_of(self, subject: str) -> bytes:
        assert self._connection is not None
        for line in reversed(self._connection.subscriptions + self._connection.between_workers):
            _, wanted, *_, sid = line.split(" ")
            if wanted == subject or (wanted.endswith("*") and subject.startswith(wanted[:-1])):
                return sid.encode()
        raise AssertionError(f"{subject} is not subscribed")

    async def _answer(self, reply: str, answer: bytes) -> None:
        assert self._connection is not None
        if not self.present:
            await self._answer_nobody(reply)
        elif answer:
            line = b"MSG %b %b %d\r\n" % (reply.encode(), self._sid_of(reply), len(answer))
            await self._connection.send(line + answer + b"\r\n")

    async def _answer_nobody(self, reply: str) -> None:
        assert self._connection is not None
        size = len(NO_RESPONDERS)
        report = b"HMSG %b %b %d %d\r\n" % (reply.encode(), self._sid_of(reply), size, size)
        await self._connection.send(report + NO_RESPONDERS + b"\r\n")

    def _write(self, subject: str, head: bytes, data: bytes) -> bytes:
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        message = stored_messages.decode(data)
        assert message is not None, data
        write = Write(subject.removeprefix(SUBJECT), fields, message)
        self.writes.append(write)
        if not self.present:
            return b""
        if self.on_write is not None and (answer := self.on_write(write)) is not None:
            return answer
        held = self.held.setdefault(write.name, [])
        if int(fields["Nats-Expected-Last-Subject-Sequence"]) != (held[-1][0] if held else 0):
            return json.dumps(WRONG_SEQUENCE).encode()
        if fields.get("Nats-Rollup") == "sub":
            held.clear()
        return json.dumps({"stream": "kpc-sessions", "seq": self.put(write.name, data)}).encode()

    def _look_up(self, question: dict[str, Any]) -> bytes:
        self.lookups.append(question)
        if self.on_lookup is not None and (answer := self.on_lookup(question)) is not None:
            return answer
        subject = question.get("last_by_subj") or question["next_by_subj"]
        held = self.held.get(subject.removeprefix(SUBJECT), [])
        if "last_by_subj" in question:
            held = held[-1:]
        for sequence, data in held:
            if sequence >= question.get("seq", 0):
                return found(sequence, data)
        return json.dumps(NOTHING).encode()


def found(sequence: Any, data: bytes) -> bytes:
    """Return an answer with a message of the stream."""
    return json.dumps({"message": {"seq": sequence, "data": base64.b64encode(data).decode()}}).encode()


class StreamInfo:
    """What JetStream says of the stream itself, in place of the control connection."""

    def __init__(self, stream: SessionStream) -> None:
        self.created = "2026-01-01T00:00:00Z"
        self._stream = stream
        self.error = ""
        self.asked = 0

    async def make_stream(self, *_: object) -> dict[str, Any]:
        """Answer like kaa_gateway.bus.streams."""
        self.asked += 1
        if self.error:
            return {"error": {"code": 503, "description": self.error}}
        return {"config": {}, "created": self.created, "state": {"last_seq": self._stream.sequence}}


@dataclass
class Running:
    """A worker, its stream, and its connection to NATS."""

    worker: Worker
    stream: SessionStream
    info: StreamInfo
    nats: FakeNats
    connection: FakeConnection
    serving: "asyncio.Task[None]"

    async def serve_again(self) -> None:
        """Serve the next connection of the worker, after a loss."""
        await self.serving
        self.connection = await self.nats.admitted()
        self.serving = asyncio.create_task(self.stream.serve(self.connection))

    @property
    def port(self) -> int:
        """Where it serves MQTT."""
        return self.worker.ports["mqtt"]

    def count(self, reason: str) -> int:
        """Return how often something was dropped for this reason."""
        return self.worker.counters.by_reason().get(("dropped", reason), 0)

    def loads(self) -> dict[str, int]:
        """Return how many sessions were looked for, by result, without those that never came."""
        assert self.worker.session_storage is not None
        return {result: count for result, count in self.worker.session_storage.loads.items() if count}


@asynccontextmanager
async def worker_with_stream(
    stream: SessionStream | None = None, *, takeover_timeout: float = 2.0, check_period: float = 3600
) -> AsyncIterator[Running]:
    """Yield a worker whose sessions are durable, and its stream."""
    stream = stream or SessionStream()
    info = StreamInfo(stream)
    async with FakeNats() as nats:
        config = configuration(nats.url)
        replace = msgspec.structs.replace
        mqtt = replace(config.transports.mqtt, sessions="durable", takeover_timeout=takeover_timeout)
        config = replace(config, transports=replace(config.transports, mqtt=mqtt))
        with (
            patch("kaa_gateway.app.stored_sessions.make_stream", info.make_stream),
            patch("kaa_gateway.app.stored_sessions.CHECK_PERIOD", check_period),
            patch("kaa_gateway.app.stored_sessions.RETRY_PAUSE", 0.01),
        ):
            running = running_worker_of(config)
            entering = asyncio.create_task(running.__aenter__())
            connection = await nats.admitted()
            serving = asyncio.create_task(stream.serve(connection))
            found = Running(await entering, stream, info, nats, connection, serving)
            try:
                yield found
            finally:
                await running.__aexit__(None, None, None)
                found.serving.cancel()
                await asyncio.gather(found.serving, return_exceptions=True)
