"""Makes and checks the JetStream streams of durable extension instances; nothing here runs per message.

A stream is a work queue: it holds what its extension has not acknowledged yet. One that is there already and is
different is never changed: what it holds, and who relies on it, is for an operator to judge.

Source: NATS documentation, "JetStream wire API reference" ($JS.API.STREAM.*).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypedDict

import msgspec
import structlog

from kaa_gateway.bus import subjects
from kaa_gateway.bus.codes import STREAM_NAME_IN_USE, STREAM_NOT_FOUND, UNAVAILABLE
from kaa_gateway.errors import UNDECODABLE, BusError, GatewayError

log = structlog.get_logger("gateway.bus")

REQUEST_TIMEOUT = 5.0
"""Seconds for one request to JetStream."""
RETRY_PAUSE = 0.5
"""Seconds between attempts while JetStream cannot be asked."""
AWAY_PAUSE = 0.05
"""Seconds between looks whether NATS is there."""
NANOSECONDS = 1_000_000_000


class StreamState(TypedDict, total=False):
    """What a stream holds."""

    last_seq: int


class StreamAnswer(TypedDict, total=False):
    """What JetStream says of a stream."""

    error: dict[str, Any]
    config: dict[str, Any]
    created: str
    state: StreamState


_decode = msgspec.json.Decoder(StreamAnswer).decode

Request = Callable[[str, bytes, float], Awaitable[bytes]]
"""Subject, payload and seconds to the answer; BusError if there is none."""


class StreamError(GatewayError):
    """A stream is not as the configuration says, or JetStream refuses it; the detail says what to do."""


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the streams of all durable extension instances have in common: kaa.kpc.durable of the configuration."""

    storage: Literal["file", "memory"]
    replicas: int
    max_bytes: int
    max_age: float
    """Seconds."""
    discard: Literal["new", "old"]
    duplicate_window: float
    """Seconds."""


def wanted(instance: str, settings: StreamSettings) -> dict[str, Any]:
    """Return the configuration of an extension instance's stream, as JetStream reads it."""
    return {
        "name": subjects.stream(instance),
        "subjects": [subjects.service(instance, "esp", subjects.CLIENT_DATA)],
        "retention": "workqueue",
        "storage": settings.storage,
        "num_replicas": settings.replicas,
        "max_bytes": settings.max_bytes,
        "max_age": round(settings.max_age * NANOSECONDS),
        "discard": settings.discard,
        "duplicate_window": round(settings.duplicate_window * NANOSECONDS),
        "no_ack": False,
        "sealed": False,
    }


class Streams:
    """The streams of the durable extension instances of one worker."""

    def __init__(
        self,
        request: Request,
        instances: Iterable[str],
        settings: StreamSettings,
        domain: str | None = None,
    ) -> None:
        self._request = request
        self._domain = domain
        self._wanted = [wanted(instance, settings) for instance in instances]
        self._reported = ""

    async def ensure(self) -> None:
        """Return when each stream is there, waiting for JetStream as long as it takes. StreamError if one is wrong."""
        for stream in self._wanted:
            while True:
                try:
                    await self._ensure(stream)
                except BusError as error:
                    # That NATS is away is told by who connects.
                    if error.reason != "nats_away" and str(error) != self._reported:
                        self._reported = str(error)
                        log.error("cannot check a stream, trying on", stream=stream["name"], error=str(error))
                    await asyncio.sleep(RETRY_PAUSE if error.reason != "nats_away" else AWAY_PAUSE)
                else:
                    break

    async def _ensure(self, stream: dict[str, Any]) -> None:
        name = stream["name"]
        answer = await make_stream(self._request, stream, self._domain)
        if error := answer.get("error"):
            if error.get("err_code") in UNAVAILABLE:
                raise BusError("jetstream_unavailable", str(error.get("description")))
            raise StreamError("stream_refused", f"stream {name}: JetStream says: {error.get('description')}")
        found = answer["config"]
        wrong = [
            f"{key} is {found.get(key)!r} instead of {value!r}"
            for key, value in stream.items()
            if (found.get(key) or None) != (value or None)
        ]
        if wrong:
            raise StreamError(
                "stream_differs",
                f"stream {name} is not what kaa.kpc.durable says: {'; '.join(wrong)}. "
                "Change the configuration, or the stream (`nats stream edit`), or remove it when it is empty",
            )


async def make_stream(request: Request, stream: dict[str, Any], domain: str | None = None) -> dict[str, Any]:
    """Return what JetStream says of a stream, which is made if it is not there. BusError if there is no answer."""
    name = stream["name"]
    answer = await _ask(request, domain, f"STREAM.INFO.{name}", None)
    if (answer.get("error") or {}).get("err_code") == STREAM_NOT_FOUND:
        answer = await _ask(request, domain, f"STREAM.CREATE.{name}", stream)
        if "error" not in answer:
            log.info("stream made", stream=name)
        elif answer["error"].get("err_code") == STREAM_NAME_IN_USE:
            # Another worker was faster, with other settings.
            answer = await _ask(request, domain, f"STREAM.INFO.{name}", None)
    return answer


async def _ask(
    request: Request, domain: str | None, subject: str, body: dict[str, Any] | None
) -> dict[str, Any]:
    payload = b"" if body is None else msgspec.json.encode(body)
    try:
        data = await request(subjects.jetstream(domain, subject), payload, REQUEST_TIMEOUT)
    except BusError as error:
        if error.reason == "nats_no_responders":
            raise BusError("jetstream_off", "JetStream is not enabled, or not there") from error
        raise
    try:
        return dict(_decode(data))
    except UNDECODABLE as error:
        raise BusError("jetstream_unavailable", "an answer of JetStream is malformed") from error
