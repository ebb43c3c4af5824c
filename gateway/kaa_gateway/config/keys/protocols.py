"""The keys of `kaa.kpc.transports.protocols`: protocols of plug-ins, each with its listeners."""

from typing import Annotated, Literal

from msgspec import Meta

from kaa_gateway.config.keys.tls import DatagramTls, StreamTls
from kaa_gateway.config.keys.units import DAY, MANY, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import (
    Boolean,
    Integer,
    OptionalLevelName,
    Port,
    ProtocolClass,
    ProtocolOptions,
    Seconds,
    Size,
)


class PluginProtocol(Section, frozen=True, kw_only=True):
    """A protocol of a plug-in."""

    protocol: Annotated[
        ProtocolClass,
        Meta(
            description="The class: `module:Class`, or an entry point of the group `kaa_gateway.protocols`. "
            "Nothing is the entry point with the name of this section."
        ),
    ] = None
    transport: Annotated[
        Literal["tcp", "udp"], Meta(description="What carries it: a stream, or datagrams.")
    ] = "tcp"
    enabled: Annotated[Boolean, Meta(description="Whether to listen for it without encryption.")] = True
    port: Annotated[Port, Meta(description="Port of the listener without encryption.")] = 1
    tls: StreamTls = StreamTls()
    dtls: DatagramTls = DatagramTls()
    proxy_protocol: Annotated[
        Boolean,
        Meta(description="Whether its listeners speak the PROXY protocol, as `proxy-protocol` says."),
    ] = False
    app_version: Annotated[OptionalLevelName, Meta(description="Application version of its devices.")] = None
    options: Annotated[
        ProtocolOptions, Meta(description="Options of the protocol, as it declares them.")
    ] = ()
    max_message_size: Annotated[
        Size,
        Meta(ge=1, le=16 * MiB, description="Largest message of a device; a larger one ends its connection."),
    ] = 4 * KiB
    login_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.1,
            le=DAY,
            description="Seconds until the endpoint of a connection is identified, or a message is forwarded.",
        ),
    ] = 30.0
    idle_timeout: Annotated[
        Seconds, Meta(ge=1, le=30 * DAY, description="Seconds of silence after which a connection is ended.")
    ] = 600.0
    response_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=3600, description="Seconds that an extension has to answer; then it is 504.")
    ] = 30.0
    peers: Annotated[
        Integer,
        Meta(ge=8, le=MANY, description="Over UDP, addresses that one worker remembers; the idlest goes."),
    ] = 100_000
