"""The requests that operators send to replicas, and their answers, in JSON.

A request goes to `kaa.v1.service.<instance>.gateway.<kind>`, which all replicas answer, or to
`kaa.v1.replica.<replica>.gateway.<kind>`. Each worker of a gateway is a replica.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from kaa_gateway.bus import subjects

PROTOCOL = "gateway"
"""The protocol in the subjects."""

Message = TypeVar("Message", bound=Struct)


class Request(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A request; the class is its kind."""


class GetStatus(Request, frozen=True, kw_only=True):
    """Say how you are."""


class Drain(Request, frozen=True, kw_only=True):
    """Accept nothing more, and send all clients away."""

    rate: int | None = None
    """Connections a second; 0 is all at once, None is what is configured."""
    permanent: bool = False


class Shed(Request, frozen=True, kw_only=True):
    """Send some clients to other replicas, and go on."""

    count: int
    rate: int | None = None
    permanent: bool = False


class ListSessions(Request, frozen=True, kw_only=True):
    """List sessions from a slot on."""

    slot: int = 0
    limit: int = 100
    protocol: str | None = None
    client: str | None = None
    endpoint: str | None = None


class ShowSession(Request, frozen=True, kw_only=True):
    """Show one session."""

    key: int


class EndSession(Request, frozen=True, kw_only=True):
    """End a session."""

    key: int


class ListEndings(Request, frozen=True, kw_only=True):
    """List the newest connections that have ended or were refused."""

    client: str | None = None
    limit: int = 100


class Status(Struct, frozen=True, kw_only=True, rename="camel"):
    """How a replica is."""

    replica: str
    version: str
    connections: int
    """Of TCP."""
    clients: int
    """Connections that can be sent to another replica: those of MQTT."""
    sessions: int
    endpoints: int
    """That are known: connected, or of a cached route."""
    draining: bool
    messages_in: int = 0
    """Since its start."""
    messages_out: int = 0


class Sessions(Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of sessions, and the slot where the next begins; None after the last."""

    replica: str
    sessions: list[dict[str, Any]]
    next: int | None


class Endings(Struct, frozen=True, kw_only=True, rename="camel"):
    """Connections that have ended or were refused, newest first."""

    replica: str
    endings: list[dict[str, Any]]


class Done(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a request has done: how many connections or sessions it concerns."""

    count: int


class Refused(Struct, frozen=True, kw_only=True, rename="camel"):
    """A request that cannot be read or done."""

    error: str


def to_all(instance: str, kind: str) -> str:
    """Return the subject of requests of a kind to all replicas."""
    return subjects.service(instance, PROTOCOL, kind)


def to_one(replica_id: str, kind: str) -> str:
    """Return the subject of requests of a kind to one replica."""
    return subjects.replica(replica_id, PROTOCOL, kind)


def encode(message: Struct) -> bytes:
    """Encode a request or an answer."""
    return msgspec.json.encode(message)


def decode(kind: type[Message], datum: bytes) -> Message:
    """Decode a request or an answer. Raises one of `kaa_gateway.errors.UNDECODABLE`."""
    return msgspec.json.decode(datum, type=kind)
