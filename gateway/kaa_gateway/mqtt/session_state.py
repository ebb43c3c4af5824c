"""The state of a session on its way to another worker, as bytes.

What lives here: its form, and the checks that need no more than the form. What does not: how it is taken from a
session and put into one (`session_transfer.pyx`), and who gets it (`kaa_gateway.fleet`). Times are milliseconds since
the epoch.

It is a MessagePack array that begins with its version. A worker reads its own version only, and treats all others, like
everything that is malformed, as no state.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from kaa_gateway.bus.push_receipts import RECEIPT_SUBJECT
from kaa_gateway.errors import UNDECODABLE

VERSION = 1

COUNT_MAX = 100_000
"""Elements of each list; more than any limit of a session allows."""

PACKET_IDS = 65_536

PacketId = Annotated[int, Meta(ge=1, le=65_535)]
Qos = Annotated[int, Meta(ge=0, le=2)]
Deadline = Annotated[int, Meta(ge=0, lt=1 << 62)]
Name = Annotated[bytes, Meta(min_length=1, max_length=65_535)]
Digest = int
"""64 bits without a sign, which msgspec cannot bound."""


class Subscription(Struct, frozen=True, array_like=True):
    """A topic filter. Its Subscription Identifier is 0 if it has none."""

    topic_filter: Name
    qos: Qos
    identifier: Annotated[int, Meta(ge=0, le=268_435_455)]


class AttachedEndpoint(Struct, frozen=True, array_like=True):
    """A token under which the session speaks for an endpoint; an identity (`kaa_gateway.identity.provider`)."""

    app_version: Name
    token: Name
    endpoint_id: Annotated[str, Meta(min_length=1, max_length=1024)]
    token_id: Annotated[str, Meta(max_length=1024)] | None

    @property
    def valid_until(self) -> float:
        """When the identity must be asked for again: before anything else uses it."""
        return 0.0


class WantedReceipt(Struct, frozen=True, array_like=True):
    """What an extension wants to know of a push: where the receipt goes, and what stands in it."""

    subject: Annotated[str, Meta(pattern=RECEIPT_SUBJECT)]
    push_id: Annotated[str, Meta(max_length=128)]
    endpoint_id: Annotated[str, Meta(max_length=1024)]
    session: Annotated[str, Meta(max_length=16)]


class InFlight(Struct, frozen=True, array_like=True):
    """A message to the client without PUBACK or PUBCOMP: the encoded PUBLISH, or None if PUBREL has been sent."""

    packet_id: PacketId
    packet: bytes | None
    deadline: Deadline
    receipt: WantedReceipt | None = None


class Queued(Struct, frozen=True, array_like=True):
    """A message that has not been sent to the client yet."""

    topic: Name
    payload: bytes
    properties: bytes | None
    deadline: Deadline
    qos: Annotated[int, Meta(ge=1, le=2)]
    repeats: bool
    receipt: WantedReceipt | None = None


class Received(Struct, frozen=True, array_like=True):
    """A QoS 2 message of the client that NATS has, before its PUBREL."""

    packet_id: PacketId
    digest: Digest
    reason_code: Annotated[int, Meta(ge=0, lt=0x80)]


class Awaited(Struct, frozen=True, array_like=True):
    """A request with a Response Topic that is not answered yet: the number of its answer, and where that goes."""

    number: Annotated[int, Meta(ge=0, lt=1 << 26)]
    topic: Name
    correlation_data: Annotated[bytes, Meta(max_length=65_535)] | None


class SessionState(Struct, frozen=True, array_like=True, kw_only=True):
    """What a session remembers of its client."""

    version: Literal[1]
    expiry: Annotated[float, Meta(ge=0)]
    """Seconds from now on for which it stays if its client does not come back."""
    level_in_flight: Annotated[int, Meta(ge=0, le=5)]
    last_packet_id: Annotated[int, Meta(ge=0, le=65_535)]
    subscriptions: Annotated[list[Subscription], Meta(max_length=COUNT_MAX)]
    endpoints: Annotated[list[AttachedEndpoint], Meta(max_length=COUNT_MAX)]
    in_flight: Annotated[list[InFlight], Meta(max_length=65_535)]
    queued: Annotated[list[Queued], Meta(max_length=COUNT_MAX)]
    received: Annotated[list[Received], Meta(max_length=65_535)]
    pushes: Annotated[list[Digest], Meta(max_length=1024)]
    """Digests of the pushes that it got last, which are not delivered again if an extension repeats them."""
    awaited: Annotated[list[Awaited], Meta(max_length=COUNT_MAX)] = []
    """In order. Workers that do not know this field ignore it, and drop the answers."""
    registered_topics: Annotated[list[Name], Meta(max_length=65_534)] = []
    """Of its client over MQTT-SN: topic ID n stands at n - 1. Workers that do not know this field ignore it."""
    uses_predefined_topics: bool = False
    """The same client has used predefined topic IDs, so it knows them."""
    revision: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    """Of a session that is stored: the sequence of its last message in the stream (`kaa_gateway.fleet`); else 0."""


class Addition(Struct, frozen=True, array_like=True):
    """Messages that were queued since a state was stored, and the last pushes."""

    queued: Annotated[list[Queued], Meta(max_length=COUNT_MAX)]
    pushes: Annotated[list[Digest], Meta(max_length=1024)]


encode = msgspec.msgpack.Encoder().encode
"""Return a SessionState as bytes."""

_decoder = msgspec.msgpack.Decoder(SessionState)
_addition_decoder = msgspec.msgpack.Decoder(Addition)


def decode(data: bytes) -> SessionState | None:
    """Return the state that `data` holds, or None if it is malformed or of another version."""
    try:
        return _decoder.decode(data)
    except UNDECODABLE:
        return None


def restored(state: bytes, additions: list[bytes], revision: int) -> bytes | None:
    """Return the state of a stored session, as its worker would have sent it; None if it is malformed.

    A worker that was killed may have sent packets at last that are not stored. Packet identifiers go on far from
    theirs: a client which has a packet of QoS 2 would take another one under its identifier for a repetition.
    """
    found = decode(state)
    if found is None:
        return None
    queued, pushes = list(found.queued), found.pushes
    try:
        for data in additions:
            addition = _addition_decoder.decode(data)
            queued += addition.queued
            pushes = addition.pushes
    except UNDECODABLE:
        return None
    last = (found.last_packet_id + PACKET_IDS // 2) % PACKET_IDS
    return encode(
        msgspec.structs.replace(found, queued=queued, pushes=pushes, last_packet_id=last, revision=revision)
    )
