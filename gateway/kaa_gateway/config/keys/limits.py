"""The keys of `kaa.kpc.limits`."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.units import MANY, GiB, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Integer, Size


class Limits(Section, frozen=True, kw_only=True):
    """Bounds of one worker's tables and queues."""

    connections: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="Open device connections of one worker; more are closed at once."),
    ] = 100_000
    accepts_per_second: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="New connections a second that one listener accepts; more wait in the kernel; 0 is any.",
        ),
    ] = 0
    redirects_per_second: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="MQTT connections a second that one worker ends when it drains; 0: all at once.",
        ),
    ] = 0
    half_open_connections: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MANY,
            description="Connections of one listener that have sent no CONNECT or request yet, or not the credentials "
            "that `http.client-authentication` demands; the oldest goes.",
        ),
    ] = 10_000
    connections_per_source: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="Open TCP connections of one IPv4 address or IPv6 /64 network; 0 is no limit.",
        ),
    ] = 0
    messages_per_second: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="Packets or requests a second read from one TCP connection, which then pauses; 0 is any.",
        ),
    ] = 0
    bytes_per_second: Annotated[
        Size, Meta(ge=0, le=64 * GiB, description="Bytes a second read from one TCP connection; 0 is any.")
    ] = 0
    messages_per_second_of_source: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="Packets, requests and datagrams a second of one source; datagrams beyond are dropped.",
        ),
    ] = 0
    bytes_per_second_of_source: Annotated[
        Size, Meta(ge=0, le=64 * GiB, description="Bytes a second of one source; 0 is any.")
    ] = 0
    endpoints_per_connection: Annotated[
        Integer, Meta(ge=1, le=MANY, description="Endpoints that one connection may speak for.")
    ] = 10_000
    route_cache: Annotated[
        Integer, Meta(ge=1, le=MANY, description="Compiled routes (topics) that one worker keeps.")
    ] = 100_000
    waiting_messages: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="Messages of one session that wait while a token is resolved."),
    ] = 100
    waiting_bytes: Annotated[
        Size, Meta(ge=KiB, le=GiB, description="Bytes of one session that wait while a token is resolved.")
    ] = 256 * KiB
    pending_requests: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MANY,
            description="Unanswered requests of one worker over each of HTTP, CoAP and KP over UDP.",
        ),
    ] = 100_000
    output_buffer: Annotated[
        Size, Meta(ge=KiB, le=4 * GiB, description="Bytes queued to one slow connection before it is closed.")
    ] = 4 * MiB
    input_memory: Annotated[
        Size,
        Meta(
            ge=MiB,
            le=64 * GiB,
            description="Bytes of one worker in MQTT packets and HTTP requests that are not whole yet, but for 4 KiB "
            "of each; a connection that asks for more is closed, a request answered 503.",
        ),
    ] = 512 * MiB
    topic_length: Annotated[
        Size,
        Meta(ge=16, le=65_535, description="Length of a 1/KP resource path with all that stands before it."),
    ] = 1024
