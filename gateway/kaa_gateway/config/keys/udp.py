"""The keys of `kaa.kpc.transports.udp`: KP over UDP."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.units import DAY, MANY
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Boolean, Integer, OptionalPath, Port, Seconds


class SecureUdp(Section, frozen=True, kw_only=True):
    """KP/UDP version 2, which is encrypted. All other keys of `udp` but `enabled` and `port` hold for it too."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for encrypted KP over UDP.")] = False
    port: Annotated[Port, Meta(description="UDP port of encrypted KP over UDP.")] = 5687
    psk_file: Annotated[
        OptionalPath,
        Meta(description="YAML file of pre-shared keys by identity; each has at least 16 bytes."),
    ] = None
    session_timeout: Annotated[
        Seconds,
        Meta(ge=1, le=30 * DAY, description="Seconds of silence after which a session is forgotten."),
    ] = 7 * DAY
    sessions: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="Sessions that one worker remembers; the longest silent one goes."),
    ] = 100_000


class Udp(Section, frozen=True, kw_only=True):
    """The KP/UDP server."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for KP over UDP without encryption.")] = (
        False
    )
    port: Annotated[Port, Meta(description="UDP port of KP over UDP without encryption.")] = 5686
    response_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=240, description="Seconds that an extension has to answer; then it is 504.")
    ] = 30.0
    ack_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=60, description="Seconds before the first retransmission.")
    ] = 2.0
    peer_timeout: Annotated[
        Seconds, Meta(ge=1, le=DAY, description="Seconds of silence after which an address is forgotten.")
    ] = 300.0
    peers: Annotated[
        Integer, Meta(ge=8, le=MANY, description="Addresses that one worker remembers; the idlest goes.")
    ] = 100_000
    unacknowledged: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="Requests, responses and pushes under way in one worker."),
    ] = 100_000
    secure: SecureUdp = SecureUdp()
