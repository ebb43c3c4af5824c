"""The keys of service-config.yml: their names, types, bounds, defaults and what each is for.

What lives here: one struct a section; a field is a key (`max_packet_size` is `max-packet-size`), its `Meta`
the bounds and the sentence that the reference in docs/configuration.md shows. Nothing else declares a key,
but `kaa_gateway.config.tls_keys` those of the listeners that encrypt.
KPC's keys are those of its public documentation; the others are ours. What does not live here: reading
(`kaa_gateway.config.sources`), and what several keys must agree on (`kaa_gateway.config`).
"""

import secrets
from functools import cache
from typing import Annotated, Literal

from msgspec import Meta, field

from kaa_gateway.config.identity_keys import DAY, ClientAuthentication, IdentitySettings
from kaa_gateway.config.schema import Section
from kaa_gateway.config.tls_keys import CoapDtls, HttpTls, MqttTls, WebSocketTls
from kaa_gateway.config.values import (
    Address,
    Boolean,
    CollectorUrl,
    Integer,
    LevelName,
    Name,
    Names,
    NatsUrls,
    OptionalLevelName,
    OptionalPath,
    PathPrefix,
    Port,
    Ratio,
    Seconds,
    Size,
    masked,
)

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

MQTT_MAX_PACKET_SIZE = 5 + 268_435_455
"""The largest packet that MQTT 3.1.1 section 2.2.3 can express, fixed header included, in bytes."""

MQTT_MAX_IN_FLIGHT = 65_535
"""Packet identifiers that one MQTT session has."""

MANY = 100_000_000
"""Upper bound of counts that only memory limits."""


@cache
def random_replica_id() -> str:
    """A replica ID that no other replica of the cluster has; this process keeps it when it reads its file again."""
    return f"kpc-{secrets.token_hex(8)}"


# service.*, server.*


class Replica(Section, frozen=True, kw_only=True):
    """One running copy of the service."""

    id: Annotated[
        Name,
        Meta(
            description="Replica ID, unique in the cluster; it is part of the reply subjects.",
            extra={"default": "random, kpc-<16 hex digits>"},
        ),
    ] = field(default_factory=random_replica_id)


class Instance(Section, frozen=True, kw_only=True):
    """The service instance that this gateway is, in 3/ISM's sense."""

    name: Annotated[Name, Meta(description="Service instance name, unique in the cluster.")] = "kpc"
    replica: Replica = field(default_factory=Replica)


class Service(Section, frozen=True, kw_only=True):
    """The service as a member of the cluster."""

    instance: Instance = field(default_factory=Instance)
    graceful_shutdown: Annotated[
        Seconds,
        Meta(ge=0, le=DAY, description="Seconds that SIGTERM leaves for finishing what is in flight."),
    ] = 30.0


class Server(Section, frozen=True, kw_only=True):
    """The management API."""

    port: Annotated[Port, Meta(description="TCP port of the management REST API.")] = 8008
    token_file: Annotated[
        OptionalPath,
        Meta(
            description="File with the bearer token of /api, at least 16 characters; without one, /api answers "
            "requests from its own machine only."
        ),
    ] = None


# kaa.applications, kaa.extension-instances


class ApplicationVersion(Section, frozen=True, kw_only=True):
    """One version of an application."""

    allowed_extension_instances: Annotated[
        Names, Meta(description="Extension instances that endpoints of this application version may use.")
    ] = ()


class Application(Section, frozen=True, kw_only=True):
    """An application with its versions by name."""

    tenant: Annotated[
        OptionalLevelName, Meta(description="ID of the tenant that it belongs to; nothing is none.")
    ] = None
    versions: dict[LevelName, ApplicationVersion] = field(default_factory=dict)


class ExtensionInstanceKeys(Section, frozen=True, kw_only=True):
    """One extension service instance."""

    endpoint_aware: Annotated[
        Boolean,
        Meta(description="Whether an endpoint token follows the instance name in its resource paths."),
    ] = True
    durable: Annotated[
        Boolean,
        Meta(
            description="Whether what devices send to it is acknowledged only when a JetStream stream has "
            "stored it."
        ),
    ] = False


# kaa.kpc.transports


class MqttTcp(Section, frozen=True, kw_only=True):
    """Plain MQTT."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT over TCP.")] = True
    port: Annotated[Port, Meta(description="TCP port of MQTT.")] = 1883


class MqttWebSocket(Section, frozen=True, kw_only=True):
    """MQTT over WebSocket, on path /ws."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT over WebSocket.")] = False
    port: Annotated[Port, Meta(description="TCP port of MQTT over WebSocket.")] = 8083
    tls: WebSocketTls = WebSocketTls()
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
    subscriptions_per_client: Annotated[
        Integer, Meta(ge=1, le=MANY, description="Topic filters that one client may subscribe to.")
    ] = 1000


class Http(Section, frozen=True, kw_only=True):
    """The HTTP/1.1 server."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for HTTP.")] = True
    port: Annotated[Port, Meta(description="TCP port of HTTP.")] = 8080
    tls: HttpTls = HttpTls()
    client_authentication: ClientAuthentication = "off"
    path_prefix: Annotated[
        PathPrefix, Meta(description="What stands before /kp1 in the URL path of every request.")
    ] = ""
    max_body_size: Annotated[
        Size, Meta(ge=0, le=GiB, description="Largest request body; a larger one is answered with 413.")
    ] = MiB
    max_header_size: Annotated[
        Size, Meta(ge=KiB, le=MiB, description="All header fields of one request together; more is 431.")
    ] = 16 * KiB
    max_url_length: Annotated[
        Size, Meta(ge=64, le=MiB, description="Length of the request target; a longer one is 414.")
    ] = 4 * KiB
    response_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.1, le=3600, description="Seconds that an extension has to answer a request; then it is 504."
        ),
    ] = 30.0
    read_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.1, le=3600, description="Seconds from the first byte of a request to its last; more is 408."
        ),
    ] = 30.0
    keep_alive_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=DAY, description="Seconds that a connection may be idle between requests.")
    ] = 75.0
    pipelined_requests: Annotated[
        Integer,
        Meta(
            ge=1,
            le=10_000,
            description="Unanswered requests of one connection; reading pauses at this number.",
        ),
    ] = 32


class Coap(Section, frozen=True, kw_only=True):
    """The CoAP server."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for CoAP over UDP.")] = True
    port: Annotated[Port, Meta(description="UDP port of CoAP.")] = 5683
    dtls: CoapDtls = CoapDtls()
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
    ack_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=60, description="Seconds before the first retransmission (RFC 7252: 2).")
    ] = 2.0
    max_body_size: Annotated[
        Size, Meta(ge=KiB, le=64 * MiB, description="Largest body in blocks; a larger one is 4.13.")
    ] = MiB
    block_memory: Annotated[
        Size, Meta(ge=64 * KiB, le=64 * GiB, description="Bytes of unfinished block transfers, each way.")
    ] = 64 * MiB
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
        Integer, Meta(ge=1, le=MANY, description="Observe registrations of one worker; more are refused.")
    ] = 50_000
    observers_per_peer: Annotated[
        Integer, Meta(ge=1, le=MANY, description="Observe registrations of one address.")
    ] = 16
    requests_per_second: Annotated[
        Seconds, Meta(ge=0, le=1e6, description="Datagrams a second taken from one address; 0 is no limit.")
    ] = 0.0
    require_echo: Annotated[
        Boolean,
        Meta(description="Whether an address must prove itself by Echo (RFC 9175) before any request."),
    ] = False


class Udp(Section, frozen=True, kw_only=True):
    """The KP/UDP server."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for KP over UDP.")] = True
    port: Annotated[Port, Meta(description="UDP port of KP over UDP.")] = 5686
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


class Transports(Section, frozen=True, kw_only=True):
    """What devices connect to."""

    bind_address: Annotated[
        Address, Meta(description="Address that all listeners bind to; `::` is all of IPv6, and IPv6 only.")
    ] = "0.0.0.0"
    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    coap: Coap = Coap()
    udp: Udp = Udp()


# kaa.kpc, the rest


class NatsTls(Section, frozen=True, kw_only=True):
    """TLS towards NATS servers."""

    ca_file: Annotated[
        OptionalPath, Meta(description="Certificate authorities that NATS servers are verified with, PEM.")
    ] = None
    cert_file: Annotated[OptionalPath, Meta(description="Client certificate chain for NATS, PEM.")] = None
    key_file: Annotated[OptionalPath, Meta(description="Private key of the client certificate, PEM.")] = None


class Nats(Section, frozen=True, kw_only=True):
    """The connection to NATS."""

    urls: Annotated[
        NatsUrls,
        Meta(
            description="NATS servers, tried in turn; credentials may be in the URL.",
            extra={"variable": "NATS_URLS"},
        ),
    ] = ("nats://nats:4222",)
    credentials_file: Annotated[
        OptionalPath, Meta(description="NATS credentials file (.creds) with a user JWT and seed.")
    ] = None
    ping_timeout: Annotated[
        Seconds,
        Meta(ge=0.1, le=3600, description="Seconds without a PONG after which a connection counts as lost."),
    ] = 10.0
    max_pending_bytes: Annotated[
        Size,
        Meta(
            ge=64 * KiB,
            le=64 * GiB,
            description="Bytes not confirmed by NATS at which reading from devices pauses.",
        ),
    ] = 64 * MiB
    tls: NatsTls = NatsTls()

    def __repr__(self) -> str:
        """Without credentials: a configuration may end up in a log or a traceback."""
        return f"Nats(urls={tuple(map(masked, self.urls))!r}, ...)"


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


class Limits(Section, frozen=True, kw_only=True):
    """Bounds of one worker's tables and queues."""

    connections: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="Open device connections of one worker; more are closed at once."),
    ] = 100_000
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
        Meta(ge=1, le=MANY, description="HTTP requests of one worker that no extension has answered yet."),
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


class Events(Section, frozen=True, kw_only=True):
    """What the cluster is told of endpoints, as 9/ELCE has it."""

    idle_timeout: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=DAY,
            description="Seconds of silence after which an endpoint that speaks over HTTP, CoAP or UDP counts as "
            "disconnected; 0: such endpoints count as neither.",
        ),
    ] = 300.0
    idle_endpoints: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MANY,
            description="Endpoints of one worker that count as connected so; more push out the one looked at next.",
        ),
    ] = 100_000
    traffic_period: Annotated[
        Seconds, Meta(ge=0, le=DAY, description="Seconds between traffic reports; 0: none is made.")
    ] = 60.0


class Tracing(Section, frozen=True, kw_only=True):
    """Spans of some messages, for OpenTelemetry; needs the extra `tracing`."""

    enabled: Annotated[
        Boolean, Meta(description="Whether some messages are traced; needs the extra `tracing`.")
    ] = False
    sample_ratio: Annotated[
        Ratio, Meta(description="Which part of the messages is traced: 0.001 is one in a thousand, by lot.")
    ] = 0.001
    endpoint: Annotated[
        CollectorUrl,
        Meta(
            description="Where the collector takes OTLP over HTTP, without `/v1/traces`; none: "
            "`OTEL_EXPORTER_OTLP_ENDPOINT`, else http://localhost:4318.",
        ),
    ] = None
    service_name: Annotated[
        OptionalLevelName,
        Meta(
            description="`service.name` of the spans; none: `OTEL_SERVICE_NAME`, else `service.instance.name`."
        ),
    ] = None


class Log(Section, frozen=True, kw_only=True):
    """What the gateway writes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe level that is logged.")
    ] = "info"
    format: Annotated[
        Literal["json", "console"], Meta(description="`json`: one object a line; `console`: for people.")
    ] = "json"


class Kpc(Section, frozen=True, kw_only=True):
    """The communication service itself."""

    transports: Transports = Transports()
    identity: IdentitySettings = IdentitySettings()
    nats: Nats = Nats()
    durable: Durable = Durable()
    limits: Limits = Limits()
    events: Events = Events()
    workers: Annotated[Integer, Meta(ge=1, le=256, description="Worker processes.")] = 1
    log: Log = Log()
    tracing: Tracing = Tracing()


class Kaa(Section, frozen=True, kw_only=True):
    """Everything under `kaa`."""

    applications: dict[LevelName, Application] = field(default_factory=dict)
    extension_instances: dict[Name, ExtensionInstanceKeys] = field(default_factory=dict)
    kpc: Kpc = Kpc()


class Document(Section, frozen=True, kw_only=True):
    """The whole of service-config.yml."""

    service: Service = field(default_factory=Service)
    server: Server = Server()
    kaa: Kaa = Kaa()
