"""The messages with which the workers of a service instance agree who has a session.

What lives here: their form, and the subjects. What they mean is in `directory.pyx`. Each message is a MessagePack array
that begins with its kind. A worker of another version may send other kinds: they are dropped and counted.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from kaa_gateway.bus import subjects

PROTOCOL = "session"
"""The protocol token of the subjects (3/ISM)."""

HELLO = "hello"
"""The message type of the greeting between workers, and the last token of the subject that it is answered on."""

Name = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Inbox = Annotated[str, Meta(pattern=r"\Akaa\.v1\.replica\.[A-Za-z0-9_-]{1,128}\.session\.[0-9a-z]{1,32}\Z")]
"""Where a worker is answered. It becomes a subject that we publish to, so nothing else is let through."""

HOPS_MAX = 8
"""Workers that a message is sent on to, after a session that moves quickly."""

PARTS_MAX = 4096
"""Messages that one session may be sent in."""


class Hello(Struct, frozen=True, array_like=True, tag="hello"):
    """The worker behind `inbox` is there. `asks` says that it wants to be greeted at once."""

    number: Number
    inbox: Inbox
    asks: bool = False


class Bye(Struct, frozen=True, array_like=True, tag="bye"):
    """The worker behind `inbox` stops."""

    number: Number
    inbox: Inbox


class Offer(Struct, frozen=True, array_like=True, tag="offer"):
    """A worker that stops offers the session of an offline client, which is from the CONNECT with this number.

    `principal` and `client_id` are what the client gave, `tenant` and `client` what its identity provider did.
    """

    name: Name
    number: Number
    principal: str
    tenant: str | None
    client: str | None
    client_id: str


class Claim(Struct, frozen=True, array_like=True, tag="claim"):
    """A client has connected to the worker behind `inbox`, which takes its session over.

    `resumes` says that it wants the state, and `held` that the worker has an older session of the client itself. `hops`
    counts the workers that have sent it on, after a session that has moved.
    """

    name: Name
    number: Number
    resumes: bool
    held: bool
    inbox: Inbox
    hops: Annotated[int, Meta(ge=0, le=HOPS_MAX)] = 0


class Notice(Struct, frozen=True, array_like=True, tag="notice"):
    """A client has connected that does not wait for the end of what it has left behind."""

    name: Name
    number: Number
    inbox: Inbox


class Assertion(Struct, frozen=True, array_like=True, tag="have"):
    """The worker behind `inbox` has the session, since the CONNECT with this number."""

    name: Name
    number: Number
    inbox: Inbox


class Newer(Struct, frozen=True, array_like=True, tag="newer"):
    """A worker has the session since a newer CONNECT, which has this number."""

    name: Name
    number: Number


class Nothing(Struct, frozen=True, array_like=True, tag="nothing"):
    """There is no state for the worker that claims a session.

    `unknown` says that the worker which answers did not expect the claim, because it has left the session a moment
    ago: another one may have it.
    """

    unknown: bool = False


class State(Struct, frozen=True, array_like=True, tag="state"):
    """A part of the state of a claimed session, which is from the CONNECT with this number."""

    number: Number
    part: Annotated[int, Meta(ge=0, lt=PARTS_MAX)]
    parts: Annotated[int, Meta(ge=1, le=PARTS_MAX)]
    data: bytes


class Forwarded(Struct, frozen=True, array_like=True, tag="forwarded"):
    """An ExtensionData that has come to a former worker of a session: an answer, or a push.

    `service` and `sequence` are those of the message that it answers; of a push they are None and 0. `header` is its
    NATS header.
    """

    name: Name
    hops: Annotated[int, Meta(ge=0, le=HOPS_MAX)]
    service: Annotated[int, Meta(ge=0, le=2)] | None
    sequence: Annotated[int, Meta(ge=0, lt=1 << 28)]
    header: bytes
    datum: bytes


Message = Forwarded | Hello | Bye | Offer | Claim | Notice | Assertion | Newer | Nothing | State

encode = msgspec.msgpack.Encoder().encode
"""Return a message as bytes."""

decode = msgspec.msgpack.Decoder(Message).decode
"""Return a Message from bytes. Raises one of `kaa_gateway.errors.UNDECODABLE` if they are none."""


def session_prefix(instance: str) -> str:
    """Return the subject of a session of a service instance, up to its name."""
    return subjects.service(instance, PROTOCOL, "")


def inbox_prefix(replica_id: str) -> str:
    """Return the subject on which a worker is answered, up to the last token."""
    return subjects.replica(replica_id, PROTOCOL, "")


def part_count(size: int, part_size: int) -> int:
    """Return the number of messages that so many bytes of state take: one at least."""
    return max(1, -(-size // part_size))
