"""The keys of `kaa.kpc.transports.coap`."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.identity import ClientAuthentication
from kaa_gateway.config.keys.tls import DatagramTls, StreamTls
from kaa_gateway.config.keys.units import DAY, MANY, GiB, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import (
    AlternativeAddress,
    Boolean,
    Integer,
    InterfaceNames,
    Port,
    Seconds,
    Size,
)

ALTERNATIVE_ADDRESS = (
    "Where clients are sent when the gateway drains (Alternative-Address of Release, RFC 8323)."
)


class CoapDtls(DatagramTls, frozen=True, kw_only=True):
    """CoAP over DTLS 1.2."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for CoAP over DTLS 1.2.")] = False
    port: Annotated[Port, Meta(description="UDP port of CoAP over DTLS.")] = 5684
    client_authentication: ClientAuthentication = "off"


class CoapTcp(Section, frozen=True, kw_only=True):
    """CoAP over TCP."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for CoAP over TCP.")] = False
    port: Annotated[Port, Meta(description="TCP port of CoAP.")] = 5683
    alternative_address: Annotated[AlternativeAddress, Meta(description=ALTERNATIVE_ADDRESS)] = None


class CoapTls(StreamTls, frozen=True, kw_only=True):
    """CoAP over TLS."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for CoAP over TLS.")] = False
    port: Annotated[Port, Meta(description="TCP port of CoAP over TLS.")] = 5684
    client_authentication: ClientAuthentication = "off"
    alternative_address: Annotated[AlternativeAddress, Meta(description=ALTERNATIVE_ADDRESS)] = None


class CoapWebSocketTls(StreamTls, frozen=True, kw_only=True):
    """CoAP over WebSocket over TLS."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for CoAP over WebSocket over TLS.")] = (
        False
    )
    port: Annotated[Port, Meta(description="TCP port of CoAP over WebSocket over TLS.")] = 8086
    client_authentication: ClientAuthentication = "off"
    alternative_address: Annotated[AlternativeAddress, Meta(description=ALTERNATIVE_ADDRESS)] = None


class CoapWebSocket(Section, frozen=True, kw_only=True):
    """CoAP over WebSocket, on the path /.well-known/coap."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for CoAP over WebSocket.")] = False
    port: Annotated[Port, Meta(description="TCP port of CoAP over WebSocket.")] = 8085
    alternative_address: Annotated[AlternativeAddress, Meta(description=ALTERNATIVE_ADDRESS)] = None
    tls: CoapWebSocketTls = CoapWebSocketTls()


class Coap(Section, frozen=True, kw_only=True):
    """The CoAP server."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for CoAP over UDP.")] = True
    port: Annotated[Port, Meta(description="UDP port of CoAP.")] = 5683
    dtls: CoapDtls = CoapDtls()
    tcp: CoapTcp = CoapTcp()
    tls: CoapTls = CoapTls()
    websocket: CoapWebSocket = CoapWebSocket()
    piggyback_delay: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=2,
            description="Seconds that a confirmable request waits for its answer before an empty "
            "acknowledgement is sent and the answer follows separately.",
        ),
    ] = 0.1
    response_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=240, description="Seconds that an extension has to answer; then it is 5.04.")
    ] = 30.0
    max_wait: Annotated[
        Seconds,
        Meta(ge=1, le=240, description="Seconds that a request with `wait` may wait for a push at most."),
    ] = 240.0
    ack_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=60, description="Seconds before the first retransmission (RFC 7252: 2).")
    ] = 2.0
    multicast_interfaces: Annotated[
        InterfaceNames,
        Meta(
            description="Interfaces on which discovery by multicast to All CoAP Nodes is answered; "
            "`bind-address` must be `0.0.0.0`, `::` or `*`."
        ),
    ] = ()
    multicast_leisure: Annotated[
        Seconds,
        Meta(ge=0, le=300, description="Seconds at most until a response to a multicast (RFC 7252: 5)."),
    ] = 5.0
    csm_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.1, le=3600, description="Seconds until the first message (CSM) over TCP, TLS or WebSocket."
        ),
    ] = 10.0
    ping_after: Annotated[
        Seconds,
        Meta(ge=1, le=DAY, description="Seconds of silence over TCP, TLS or WebSocket until a Ping is sent."),
    ] = 300.0
    max_body_size: Annotated[
        Size, Meta(ge=KiB, le=64 * MiB, description="Largest body; a larger one is 4.13.")
    ] = MiB
    block_memory: Annotated[
        Size, Meta(ge=64 * KiB, le=64 * GiB, description="Bytes of unfinished block transfers, each way.")
    ] = 64 * MiB
    transfers_per_peer: Annotated[
        Integer, Meta(ge=1, le=1000, description="Block transfers of one address, each way; more are 5.03.")
    ] = 4
    peers: Annotated[
        Integer, Meta(ge=1, le=MANY, description="Addresses that one worker remembers; the idlest goes.")
    ] = 100_000
    exchanges: Annotated[
        Integer,
        Meta(ge=16, le=MANY, description="Message IDs that one worker remembers, to tell duplicates."),
    ] = 65_536
    exchanges_per_peer: Annotated[
        Integer, Meta(ge=2, le=65_535, description="Message IDs of one address that are remembered.")
    ] = 256
    outstanding_per_peer: Annotated[
        Integer, Meta(ge=1, le=65_535, description="Requests of one address that wait for their answers.")
    ] = 64
    observers: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MANY,
            description="Observe registrations of one worker, and as many waiting requests; more are refused.",
        ),
    ] = 50_000
    observers_per_peer: Annotated[
        Integer,
        Meta(
            ge=1, le=MANY, description="Observe registrations of one address, and as many waiting requests."
        ),
    ] = 16
    requests_per_second: Annotated[
        Seconds, Meta(ge=0, le=1e6, description="Datagrams a second taken from one address; 0 is no limit.")
    ] = 0.0
    require_echo: Annotated[
        Boolean,
        Meta(description="Whether an address must prove itself by Echo (RFC 9175) before any request."),
    ] = False
