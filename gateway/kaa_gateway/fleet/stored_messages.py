"""The messages of the stream `<instance>-sessions`: sessions that outlive their worker.

What lives here: their form, subjects and headers, and the stream. Who writes them, and when, is in
`session_storage.pyx`. A session has a subject of its own. Its first message there is a Snapshot, which replaces all
earlier ones; Additions follow it, until the next Snapshot. Each message is a MessagePack array that begins with its
kind. Times are milliseconds since the epoch.

Source: NATS documentation, "JetStream wire API reference", "Per-Message TTL", "Headers".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kaa_gateway.bus import subjects
from kaa_gateway.bus.codes import NO_MESSAGE
from kaa_gateway.errors import UNDECODABLE
from kaa_gateway.fleet.messages import Number

PROTOCOL = "stored-session"
"""The protocol token of the subjects (3/ISM)."""

Sequence = Annotated[int, Meta(ge=1, lt=1 << 62)]
"""Of a message in the stream."""

Time = Annotated[int, Meta(ge=0, lt=1 << 62)]


class Snapshot(Struct, frozen=True, array_like=True, tag="session"):
    """All that is remembered of a client, from the CONNECT with this number.

    `ends` is when the session expires, 0 while its client is online.
    """

    number: Number
    ends: Time
    state: bytes


class Addition(Struct, frozen=True, array_like=True, tag="more"):
    """What has been queued for the client since the Snapshot with the sequence `base`, or since the last Addition."""

    number: Number
    base: Sequence
    ends: Time
    data: bytes


class Removal(Struct, frozen=True, array_like=True, tag="removed"):
    """The session has ended. One from an older CONNECT is not to be written again."""

    number: Number


Stored = Snapshot | Addition | Removal

encode = msgspec.msgpack.Encoder().encode
"""Return a message as bytes."""

_decoder = msgspec.msgpack.Decoder(Stored)


def decode(data: bytes) -> Stored | None:
    """Return the message that `data` holds, or None if it is malformed or of another version."""
    try:
        stored: Stored = _decoder.decode(data)
    except UNDECODABLE:
        return None
    return stored


MALFORMED = "an answer of JetStream is malformed"


class PubAck(Struct):
    """What JetStream says of a message: its sequence, or why it is not stored; then the sequence is 0."""

    seq: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0
    error: dict[str, Any] | None = None

    @property
    def trouble(self) -> str:
        """Why the message is not stored."""
        return str((self.error or {}).get("description", MALFORMED))


class Found(Struct):
    """A message of the stream."""

    seq: Sequence
    data: bytes = b""


class Lookup(Struct):
    """The answer to a request for a message of the stream."""

    message: Found | None = None
    error: dict[str, Any] | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether the stream says that it has no such message."""
        return (self.error or {}).get("err_code") == NO_MESSAGE

    @property
    def trouble(self) -> str:
        """Why JetStream has not answered the request."""
        return str((self.error or {}).get("description", MALFORMED))


read_ack = msgspec.json.Decoder(PubAck).decode
read_lookup = msgspec.json.Decoder(Lookup).decode


def stream_of(instance: str) -> str:
    """Return the name of the stream of a service instance."""
    return f"{instance}-sessions"


def stream_subject(instance: str, name: str) -> str:
    """Return the subject of a session in the stream."""
    return subjects.service(instance, PROTOCOL, name)


def inbox_prefix(replica_id: str) -> str:
    """Return the subject on which JetStream answers a worker, up to the last token."""
    return subjects.replica(replica_id, PROTOCOL, "")


def last_request(subject: str) -> bytes:
    """Return a request for the last message of a subject."""
    return msgspec.json.encode({"last_by_subj": subject})


def next_request(subject: str, sequence: int) -> bytes:
    """Return a request for the first message of a subject from a sequence on."""
    return msgspec.json.encode({"seq": sequence, "next_by_subj": subject})


def header(last_sequence: int, seconds: int, *, replaces: bool) -> bytes:
    """Return the header of a message that is stored only after the one with `last_sequence`, and for so long."""
    rollup = "Nats-Rollup: sub\r\n" if replaces else ""
    return (
        f"NATS/1.0\r\n{rollup}Nats-Expected-Last-Subject-Sequence: {last_sequence}\r\nNats-TTL: {seconds}s\r\n\r\n"
    ).encode()


def stream_settings(instance: str, *, storage: str, replicas: int, max_bytes: int) -> dict[str, Any]:
    """Return the configuration of the stream, as JetStream reads it."""
    return {
        "name": stream_of(instance),
        "subjects": [stream_subject(instance, "*")],
        "storage": storage,
        "num_replicas": replicas,
        "max_bytes": max_bytes,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
    }
