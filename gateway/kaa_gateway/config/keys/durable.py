"""The keys of `kaa.kpc.durable`."""

from typing import Annotated, Literal

from msgspec import Meta

from kaa_gateway.config.keys.units import DAY, GiB, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Integer, Seconds, Size


class Durable(Section, frozen=True, kw_only=True):
    """The JetStream streams of durable extension instances, one each; they are made when they are missing."""

    storage: Annotated[Literal["file", "memory"], Meta(description="Where the servers keep a stream.")] = (
        "file"
    )
    replicas: Annotated[Integer, Meta(ge=1, le=5, description="Servers that keep a copy of a stream.")] = 1
    max_bytes: Annotated[
        Size, Meta(ge=KiB, le=1024 * GiB, description="Bytes of messages that a stream may hold.")
    ] = GiB
    max_age: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=365 * DAY,
            description="Seconds that a stream keeps what no extension has taken; 0 is for ever.",
        ),
    ] = 7 * DAY
    discard: Annotated[
        Literal["new", "old"],
        Meta(description="What a full stream does: `new`: it refuses messages; `old`: it drops the oldest."),
    ] = "new"
    duplicate_window: Annotated[
        Seconds,
        Meta(
            ge=0.1,
            le=DAY,
            description="Seconds within which a stream drops a message that is sent again; at most `max-age`.",
        ),
    ] = 120.0
    ack_timeout: Annotated[
        Seconds,
        Meta(ge=0.1, le=3600, description="Seconds after which a stream that confirms nothing is silent."),
    ] = 5.0
    max_pending_bytes: Annotated[
        Size,
        Meta(
            ge=64 * KiB,
            le=64 * GiB,
            description="Bytes not stored by a stream at which reading from devices that send to it pauses.",
        ),
    ] = 16 * MiB
