"""The keys of `kaa.kpc.transports.mqtt`."""

from typing import Annotated, Literal

from msgspec import Meta

from kaa_gateway.config.keys.identity import ClientAuthentication
from kaa_gateway.config.keys.tls import StreamTls
from kaa_gateway.config.keys.units import DAY, MANY, GiB, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import (
    Boolean,
    Integer,
    OptionalBoolean,
    Port,
    Seconds,
    ServerReference,
    Size,
    UrlPaths,
)

MQTT_MAX_PACKET_SIZE = 5 + 268_435_455
"""The largest packet that MQTT 3.1.1 section 2.2.3 can express, fixed header included, in bytes."""

MQTT_MAX_ALIAS = 65_535
"""The largest topic alias of MQTT 5."""

MQTT_MAX_IN_FLIGHT = 65_535
"""Packet identifiers that one MQTT session has."""


class MqttTls(StreamTls, frozen=True, kw_only=True):
    """MQTT over TLS."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT over TLS.")] = False
    port: Annotated[Port, Meta(description="TCP port of MQTT over TLS.")] = 8883


class WebSocketTls(StreamTls, frozen=True, kw_only=True):
    """MQTT over WebSocket over TLS."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT over WebSocket over TLS.")] = (
        False
    )
    port: Annotated[Port, Meta(description="TCP port of MQTT over WebSocket over TLS.")] = 8084


class MqttTcp(Section, frozen=True, kw_only=True):
    """Plain MQTT."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT over TCP.")] = True
    port: Annotated[Port, Meta(description="TCP port of MQTT.")] = 1883


class MqttWebSocket(Section, frozen=True, kw_only=True):
    """MQTT over WebSocket."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT over WebSocket.")] = False
    port: Annotated[Port, Meta(description="TCP port of MQTT over WebSocket.")] = 8083
    tls: WebSocketTls = WebSocketTls()
    paths: Annotated[UrlPaths, Meta(description="Paths of the Upgrade request that are accepted.")] = (
        "/ws",
        "/mqtt",
        "/",
    )
    max_frame_size: Annotated[
        Size,
        Meta(
            ge=KiB, le=GiB, description="Largest frame accepted; a larger one closes its connection (1009)."
        ),
    ] = MiB
    handshake_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=3600, description="Seconds that a client has for its Upgrade request.")
    ] = 10.0


class Mqtt(Section, frozen=True, kw_only=True):
    """The MQTT server; its settings hold for each MQTT listener."""

    tcp: MqttTcp = MqttTcp()
    tls: MqttTls = MqttTls()
    websocket: MqttWebSocket = MqttWebSocket()
    client_authentication: ClientAuthentication = "off"
    max_packet_size: Annotated[
        Size,
        Meta(
            ge=KiB,
            le=MQTT_MAX_PACKET_SIZE,
            description="Largest packet accepted from a client; a larger one closes its connection.",
        ),
    ] = MiB
    connect_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.1,
            le=3600,
            description="Seconds that a new connection has to send CONNECT and to be admitted; then it is closed.",
        ),
    ] = 10.0
    max_keep_alive: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=65_535,
            description="Longest keep-alive period granted, to clients that ask for none as well; 0 is any.",
        ),
    ] = 0.0
    receive_maximum: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MQTT_MAX_IN_FLIGHT,
            description="QoS 1 and 2 messages that a client of MQTT 5 may send before they are acknowledged.",
        ),
    ] = 1024
    topic_alias_maximum: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MQTT_MAX_ALIAS,
            description="Topic aliases that a client of MQTT 5 may set on one connection.",
        ),
    ] = 64
    refuse_control_characters: Annotated[
        OptionalBoolean,
        Meta(
            description="Whether control characters in topics, client IDs and user names close the connection; "
            "unset, they do for clients of MQTT 5.",
        ),
    ] = None
    server_reference: Annotated[
        ServerReference,
        Meta(description="Server that clients of MQTT 5 are told to use when this one stops."),
    ] = None
    in_flight_window: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MQTT_MAX_IN_FLIGHT,
            description="QoS 1 and 2 messages sent to a client that it has not acknowledged yet.",
        ),
    ] = 32
    queued_messages_per_session: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MANY,
            description="QoS 1 and 2 messages kept for a session that is away or whose window is full.",
        ),
    ] = 1000
    session_expiry: Annotated[
        Seconds,
        Meta(
            ge=0, le=365 * DAY, description="Seconds that a persistent session is kept after its client left."
        ),
    ] = 7200.0
    persistent_sessions: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="Sessions of clients that left, kept by one worker; the oldest goes first.",
        ),
    ] = 100_000
    persistent_session_memory: Annotated[
        Size,
        Meta(
            ge=64 * KiB,
            le=1024 * GiB,
            description="Bytes that one worker keeps for clients that left (their subscriptions and messages); "
            "the oldest session goes first.",
        ),
    ] = 256 * MiB
    sessions: Annotated[
        Literal["memory", "durable"],
        Meta(
            description="Where persistent sessions are kept: `memory`: they end with their worker if it is killed; "
            "`durable`: also in the JetStream stream `<instance>-sessions`."
        ),
    ] = "memory"
    takeover_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.05,
            le=60,
            description="Seconds that a client waits for its session from another worker or replica; "
            "then it is admitted without it.",
        ),
    ] = 5.0
    subscriptions_per_client: Annotated[
        Integer, Meta(ge=1, le=MANY, description="Topic filters that one client may subscribe to.")
    ] = 1000
