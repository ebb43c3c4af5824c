"""One worker: builds everything from a configuration, starts it in order, and drains it.

The composition root: the only module that knows all layers.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from kaa_gateway import logs
from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.api import WorkerApi
from kaa_gateway.admin.metrics import Queue, registry_of
from kaa_gateway.admin.server import AdminServer
from kaa_gateway.app import encryption
from kaa_gateway.bus import subjects
from kaa_gateway.bus.connector import Connector, Credentials, TlsFiles
from kaa_gateway.bus.control import OUTBOX_MAX, Control
from kaa_gateway.bus.durable import DurableLanes
from kaa_gateway.bus.link import Link
from kaa_gateway.bus.streams import StreamError, Streams
from kaa_gateway.coap.clients import dtls_clients
from kaa_gateway.coap.server import CoapServer
from kaa_gateway.counters import Counters
from kaa_gateway.http.connection import HttpServer
from kaa_gateway.identity.service import IdentityService
from kaa_gateway.identity.sharing import MAX_IN_FLIGHT
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.downlink import Downlink
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.kpudp.server import KpudpServer
from kaa_gateway.lifecycle.announcements import Announcements
from kaa_gateway.lifecycle.connectivity import Connectivity
from kaa_gateway.lifecycle.traffic import Owner, TrafficReports
from kaa_gateway.mqtt.connection import MqttServer
from kaa_gateway.mqtt.session import MqttLimits, MqttSessions
from kaa_gateway.net.admission import Admission
from kaa_gateway.net.certificates import watch
from kaa_gateway.net.dtls import DtlsSocket
from kaa_gateway.net.ports import taking
from kaa_gateway.net.tcp import TcpListener
from kaa_gateway.net.tls import TlsListener
from kaa_gateway.net.transport import InputMemory
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.net.websocket import WebSocketServer

if TYPE_CHECKING:
    from pathlib import Path

    from kaa_gateway.app.tracing import Tracing
    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import Coap
    from kaa_gateway.config.tls_keys import StreamTls
    from kaa_gateway.net.certificates import ServerCredentials
    from kaa_gateway.net.transport import ProtocolCore, Transport

log = structlog.get_logger("gateway")

RETRY_PERIOD = 5.0
"""Seconds between attempts to identify who subscribed while no identity provider could tell."""
CHECK_PERIOD = 1.0
"""Seconds between looks at what depends on time: keep-alive, half-open connections, a silent NATS server."""
ANSWER_GRACE = 1.0
"""Seconds after the longest time-out of a request until its trace has timed out as well."""
EXPIRY_PERIOD = 0.1
"""Seconds between looks for requests that nobody has answered in time."""
CLOSE_TIMEOUT = 2.0
"""Seconds that connections have at the end to take what was written to them."""


class Worker:
    """One event loop's worth of gateway.

    `index` tells the workers of a supervisor apart, from 0; those serve management on `admin_socket`, a Unix socket
    that the supervisor asks. A worker on its own serves it on `server.port`.
    """

    def __init__(self, config: Config, index: int = 0, admin_socket: Path | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._config = config
        self._index = index
        self._admin_socket = admin_socket
        replica_id = config.service.instance.replica.id
        if config.workers > 1:
            replica_id = f"{replica_id}-{index}"
        name = config.service.instance.name
        tls = TlsFiles(config.nats.tls.ca_file, config.nats.tls.cert_file, config.nats.tls.key_file)
        limits = config.limits

        # bus
        durable = sorted(each.name for each in config.extension_instances.values() if each.durable)
        reply_to = subjects.replica(replica_id, "esp", subjects.EXTENSION_DATA)
        subscriptions = (reply_to, subjects.service(name, "esp", subjects.EXTENSION_DATA))
        self.link = Link(
            loop,
            (*subscriptions, f"{reply_to}.*") if durable else subscriptions,
            config.nats.max_pending_bytes,
            config.nats.ping_timeout,
            self._on_link_lost,
        )
        credentials = Credentials(config.nats.credentials_file) if config.nats.credentials_file else None
        self._connector = Connector(
            self.link, config.nats.urls, name=f"{name} {replica_id} link", tls=tls, credentials=credentials
        )
        self.control = Control(
            config.nats.urls,
            name=f"{name} {replica_id} control",
            tls=tls,
            credentials_file=config.nats.credentials_file,
        )

        # identity, lifecycle
        self.identity = self._make_identity(replica_id)
        self._connectivity = Connectivity(self.control, name, replica_id)

        # 1/KP
        self.counters = Counters()
        self.sessions = Sessions(
            self.counters,
            self._connectivity,
            limits.endpoints_per_connection,
            idle_timeout=config.events.idle_timeout,
            watched_max=config.events.idle_endpoints,
        )
        self._traffic: TrafficReports | None = None
        if config.events.traffic_period > 0:
            self._traffic = TrafficReports(
                self.control, self.sessions, name, replica_id, owners_of(config), config.events.traffic_period
            )
        self.router = Router(
            self.sessions,
            *_routing_of(config),
            replica_id,
            limits.route_cache,
            limits.topic_length,
        )
        self.identity.bind(self.sessions, self.router)
        correlator = Correlator(secrets.randbits(24), os.urandom(16))
        uplink = self.uplink = Uplink(
            self.link,
            self.router,
            self.sessions,
            correlator,
            self.counters,
            self.identity.resolve,
            limits.waiting_messages,
            limits.waiting_bytes,
        )
        self.pending: dict[str, PendingRequests] = {}
        self.queues: list[Queue] = []
        downlink = self.downlink = Downlink(uplink, self.router, self.sessions, correlator, self.counters)
        self.link.set_listener(downlink)
        self.durable = DurableLanes(
            self.link,
            downlink,
            [
                (instance, subjects.stream(instance), subjects.service(instance, "esp", subjects.CLIENT_DATA))
                for instance in durable
            ],
            reply_to,
            config.durable.max_pending_bytes,
            config.durable.ack_timeout,
            secrets.randbits(32),
        )
        downlink.set_durable(self.durable)
        self.tracing = self._make_tracing(name, replica_id)
        self.router.set_durable(self.durable)
        self._streams = Streams(self.control.request, durable, config.durable)
        self._mending: asyncio.Task[None] | None = None

        # transports
        self.input_memory = InputMemory(limits.input_memory)
        self.admission = Admission(
            self.counters,
            half_open_max=limits.half_open_connections,
            message_rate=limits.messages_per_second,
            byte_rate=limits.bytes_per_second,
            source_connections=limits.connections_per_source,
            source_message_rate=limits.messages_per_second_of_source,
            source_byte_rate=limits.bytes_per_second_of_source,
        )
        mqtt = config.transports.mqtt
        mqtt_limits = self._mqtt_limits = MqttLimits(
            mqtt.in_flight_window,
            mqtt.queued_messages_per_session,
            limits.output_buffer,
            mqtt.subscriptions_per_client,
            limits.topic_length,
            mqtt.persistent_sessions,
            mqtt.session_expiry,
        )
        self._mqtt_sessions = MqttSessions(self.sessions, mqtt_limits)
        self._listeners: list[tuple[str, tuple[str, ...], int, TcpListener]] = []
        self.credentials: list[ServerCredentials[Any]] = []
        """What the listeners that encrypt work with."""
        self.ports: dict[str, int] = {}
        websocket = mqtt.websocket
        if mqtt.tcp.enabled or mqtt.tls.enabled or websocket.enabled or websocket.tls.enabled:
            mqtt_transport = MqttServer(
                loop,
                uplink,
                self.sessions,
                self._mqtt_sessions,
                self.counters,
                self.identity.authenticator,
                mqtt_limits,
                packet_size_max=mqtt.max_packet_size,
                connect_timeout=mqtt.connect_timeout,
                keep_alive_max=mqtt.max_keep_alive,
            )
            mqtt_transport.limit(self.input_memory)
            if mqtt.tcp.enabled:
                self._listen("mqtt", ("mqtt", "tcp"), mqtt.tcp.port, mqtt_transport.connect)
            if mqtt.tls.enabled:
                self._listen_tls("mqtts", ("mqtt", "tls"), mqtt.tls, mqtt_transport.connect)
            websockets = WebSocketServer(
                loop,
                mqtt_transport.connect,
                self.counters,
                frame_size_max=websocket.max_frame_size,
                handshake_timeout=websocket.handshake_timeout,
            )
            if websocket.enabled:
                self._listen("ws", ("mqtt", "websocket"), websocket.port, websockets.connect)
            if websocket.tls.enabled:
                self._listen_tls("wss", ("mqtt", "websocket", "tls"), websocket.tls, websockets.connect)
        self._http = None
        http = config.transports.http
        if http.enabled or http.tls.enabled:
            pending = self.pending["http"] = PendingRequests(limits.pending_requests, http.response_timeout)
            self._http = HttpServer(
                loop, uplink, self.sessions, pending, self.counters, self.identity.authenticator, http
            )
            self._http.limit(self.input_memory)
            if http.enabled:
                self._listen("http", ("http",), http.port, self._http.connect)
            if http.tls.enabled:
                self._listen_tls("https", ("http", "tls"), http.tls, self._http.connect)

        self._datagrams: list[tuple[str, tuple[str, ...], int, UdpSocket, CoapServer | KpudpServer]] = []
        self._make_coap(uplink)
        self._make_kpudp(uplink)

        self.queues += [
            Queue("nats_backlog_bytes", lambda: self.link.backlog, lambda: self.link.pending_max),
            Queue(
                "input_bytes",
                lambda: self.input_memory.bytes,
                lambda: self._config.limits.input_memory,
            ),
            Queue("events", self.control.waiting, lambda: OUTBOX_MAX),
            Queue("identity_requests", self.identity.waiting, lambda: MAX_IN_FLIGHT),
            Queue(
                "mqtt_absent_sessions", self._mqtt_sessions.offline_count, lambda: mqtt.persistent_sessions
            ),
            *(
                Queue(f"{name}_requests", table.count, lambda table=table: table.capacity)  # type: ignore[misc]
                for name, table in self.pending.items()
            ),
            *(
                Queue(
                    f"durable_{lane.instance}_bytes", lane.backlog, lambda: config.durable.max_pending_bytes
                )
                for lane in self.durable.lanes
            ),
            *(
                Queue(
                    f"{name}_connections",
                    listener.connection_count,
                    lambda: self._config.limits.connections,
                )
                for name, _, _, listener in self._listeners
            ),
        ]
        guard = Guard.from_file(config.server.token_file if admin_socket is None else None)
        self.registry = registry_of(self)
        api = WorkerApi(lambda: self._config, index, self.sessions)
        self._admin = AdminServer(self.registry, self._obstacles, api.routes(), guard)
        self._serving = False
        self._timers: list[asyncio.Task[None]] = []

    def _on_link_lost(self, sentence: str) -> None:
        self._connector.on_lost(sentence)

    def _make_identity(self, replica_id: str) -> IdentityService:
        return IdentityService(self._config, self.control, replica_id)

    def _make_tracing(self, name: str, replica_id: str) -> Tracing | None:
        if not self._config.tracing.enabled or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        # An extra, which costs memory and the time to import it.
        from kaa_gateway.app.tracing import UNDER_WAY_MAX, Tracing

        transports = self._config.transports
        slowest = max(each.response_timeout for each in (transports.http, transports.coap, transports.udp))
        tracing = Tracing(self._config.tracing, name, replica_id, slowest + ANSWER_GRACE)
        self.uplink.set_tracer(tracing.tracer)
        self.downlink.set_traces(tracing.tracer.traces)
        self.queues += [
            Queue("traces", lambda: len(tracing.tracer.traces), lambda: UNDER_WAY_MAX),
            Queue("spans", tracing.processor.waiting, lambda: tracing.processor.queue_max),
        ]
        return tracing

    def _listen(
        self, name: str, path: tuple[str, ...], port: int, connect: Callable[[Transport], ProtocolCore]
    ) -> None:
        limits = self._config.limits
        listener = TcpListener(
            self._loop, connect, self.counters, path[0], limits.output_buffer, limits.connections
        )
        self._listeners.append((name, path, port, listener))

    def _listen_tls(
        self,
        name: str,
        path: tuple[str, ...],
        settings: StreamTls,
        connect: Callable[[Transport], ProtocolCore],
    ) -> None:
        limits = self._config.limits
        credentials = encryption.stream_credentials(path, settings)
        listener = TlsListener(
            self._loop,
            connect,
            self.counters,
            path[0],
            limits.output_buffer,
            limits.connections,
            credentials,
            settings.handshake_timeout,
            settings.handshakes,
        )
        self.credentials.append(credentials)
        self._listeners.append((name, path, settings.port, listener))

    def _make_coap(self, uplink: Uplink) -> None:
        coap = self._config.transports.coap
        if coap.enabled:
            core = self._coap_core("coap", uplink, coap, require_echo=coap.require_echo)
            socket = UdpSocket(self._loop, core, self.counters)
            self._datagrams.append(("coap", ("coap",), coap.port, socket, core))
        if coap.dtls.enabled:
            # A cookie has proved the address of each of its peers.
            core = self._coap_core("coaps", uplink, coap, require_echo=False)
            credentials = encryption.datagram_credentials(("coap", "dtls"), coap.dtls)
            self.credentials.append(credentials)
            socket = DtlsSocket(
                self._loop,
                core,
                self.counters,
                credentials,
                dtls_clients(self.identity.authenticator),
                protocol="coap",
                handshake_timeout=coap.dtls.handshake_timeout,
                session_timeout=coap.dtls.session_timeout,
                handshakes_max=coap.dtls.handshakes,
                sessions_max=coap.dtls.sessions,
            )
            self._datagrams.append(("coaps", ("coap", "dtls"), coap.dtls.port, socket, core))

    def _coap_core(self, name: str, uplink: Uplink, coap: Coap, *, require_echo: bool) -> CoapServer:
        core = CoapServer(
            uplink,
            self.sessions,
            self.counters,
            {version.name: version.allowed for version in self._config.app_versions.values()},
            piggyback_delay=coap.piggyback_delay,
            response_timeout=coap.response_timeout,
            ack_timeout=coap.ack_timeout,
            pending_requests=self._config.limits.pending_requests,
            max_body_size=coap.max_body_size,
            block_memory=coap.block_memory,
            peers=coap.peers,
            exchanges=coap.exchanges,
            exchanges_per_peer=coap.exchanges_per_peer,
            outstanding_per_peer=coap.outstanding_per_peer,
            observers=coap.observers,
            observers_per_peer=coap.observers_per_peer,
            requests_per_second=coap.requests_per_second,
            require_echo=require_echo,
            now=self._loop.time(),
        )
        self.pending[name] = core.pending
        sizes = core.table_sizes
        self.queues += [
            Queue(f"{name}_peers", lambda: sizes()["peers"], lambda: coap.peers),
            Queue(f"{name}_exchanges", lambda: sizes()["answered"], lambda: coap.exchanges),
            Queue(f"{name}_observers", lambda: sizes()["observers"], lambda: coap.observers),
            Queue(
                f"{name}_request_block_bytes", lambda: sizes()["requests_bytes"], lambda: coap.block_memory
            ),
            Queue(
                f"{name}_response_block_bytes", lambda: sizes()["responses_bytes"], lambda: coap.block_memory
            ),
        ]
        return core

    def _make_kpudp(self, uplink: Uplink) -> None:
        udp = self._config.transports.udp
        if not udp.enabled:
            return
        pending = self.pending["udp"] = PendingRequests(
            self._config.limits.pending_requests, udp.response_timeout
        )
        core = KpudpServer(
            self._loop,
            uplink,
            self.sessions,
            pending,
            self.counters,
            peers=udp.peers,
            peer_timeout=udp.peer_timeout,
            ack_timeout=udp.ack_timeout,
            unacknowledged=udp.unacknowledged,
        )
        self.queues += [
            Queue("udp_peers", lambda: sum(core.peers.counts()), lambda: udp.peers),
            Queue("udp_unacknowledged", core.unacknowledged, lambda: udp.unacknowledged),
        ]
        self._datagrams.append(("udp", ("udp",), udp.port, UdpSocket(self._loop, core, self.counters), core))

    @property
    def is_ready(self) -> bool:
        """Devices are served: the listeners are open and NATS is connected."""
        return not self._obstacles()

    def _obstacles(self) -> list[str]:
        """What keeps devices from being served, in words."""
        return [
            sentence
            for sentence, holds in (
                ("The listeners are not open", not self._serving),
                ("NATS is not connected", not self.link.ready),
            )
            if holds
        ]

    async def start(self) -> None:
        """Open everything; returns when devices are served, which needs NATS.

        Raises PortError if a port is taken, ConfigError if the identity provider cannot use its configuration.
        """
        await self.identity.start()
        host = self._config.transports.bind_address
        if self._admin_socket is not None:
            await self._admin.start_on_socket(self._admin_socket)
        else:
            with taking("server.port", self._config.server.port):
                await self._admin.start(host, self._config.server.port)
            self.ports["admin"] = self._admin.port
        self._connector.start()
        self.control.start()
        self._timers.append(self._loop.create_task(self._every(EXPIRY_PERIOD, self._expire)))
        self._timers.append(self._loop.create_task(self._every(CHECK_PERIOD, self._check)))
        self._timers.append(self._loop.create_task(watch(self.credentials)))
        self._timers.append(
            self._loop.create_task(self._every(RETRY_PERIOD, self.uplink.retry_identifications))
        )
        while not self.link.ready:
            await asyncio.sleep(0.01)
        await self._streams.ensure()
        shared = self._config.workers > 1
        for name, path, port, listener in self._listeners:
            listener.limit(self.admission)
            with taking(f"{encryption.key_of(path)}.port", port):
                listener.start(host, port, reuse_port=shared)
            self.ports[name] = listener.port
        for name, path, port, socket, _ in self._datagrams:
            socket.limit(self.admission)
            with taking(f"{encryption.key_of(path)}.port", port):
                socket.start(host, port, reuse_port=shared)
            self.ports[name] = socket.port
        if self._traffic is not None:
            self._traffic.start()
        self._serving = True
        log.info("serving devices", worker=self._index, **self.ports)

    def heed_announcements(self, announce: Callable[[], None]) -> None:
        """Call `announce` when the cluster says that the configuration has changed; to be said before `start`."""
        Announcements(self.control, self.counters, self._config.service.instance.name, announce)

    async def reconfigure(self, config: Config) -> None:
        """Go on with another configuration, which differs only in keys that `kaa_gateway.app.reload` says can be applied.

        Sessions that it allows go on. Those that speak for nothing but endpoints of application versions which are no
        more are ended.
        """
        if config.log.level != self._config.log.level:
            # Else one that was set by hand stays.
            logs.set_level(config.log.level)
        self._config = config
        limits = config.limits
        self.sessions.set_limit(limits.endpoints_per_connection)
        self.router.set_limits(limits.route_cache, limits.topic_length)
        self.uplink.set_limits(limits.waiting_messages, limits.waiting_bytes)
        self._mqtt_limits.set_sizes(limits.output_buffer, limits.topic_length)
        self.input_memory.set_limit(limits.input_memory)
        for table in self.pending.values():
            table.set_capacity(limits.pending_requests)
        for _, _, _, listener in self._listeners:
            listener.set_limits(limits.output_buffer, limits.connections)
        if self._traffic is not None:
            self._traffic.add_owners(owners_of(config))
        self.identity.configure(config)
        routing = _routing_of(config)
        changed, gone = self.router.configure(*routing)
        for _, _, _, _, core in self._datagrams:
            if isinstance(core, CoapServer):
                core.list_links(routing[0])
        ended = self.sessions.withdraw(changed, gone, "not_configured")
        log.info("configuration applied", worker=self._index, sessions_ended=ended)

    async def stop(self) -> None:
        """Drain: accept no more, finish what is in flight within the graceful-shutdown time, close."""
        deadline = self._loop.time() + self._config.service.graceful_shutdown
        self._serving = False
        for _, _, _, listener in self._listeners:
            listener.stop_accepting()
        if self._http is not None:
            self._http.begin_drain()
        for _, _, _, _, core in self._datagrams:
            core.begin_drain()
        while any(table.count() for table in self.pending.values()) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        await self._drain_link(deadline)
        for _, _, _, listener in self._listeners:
            await listener.stop(CLOSE_TIMEOUT)
        for _, _, _, socket, _ in self._datagrams:
            socket.stop()
        # Closing connections has published wills.
        await self._drain_link(deadline)
        self.sessions.end_presence()
        self._connectivity.flush()
        if self._mending is not None:
            self._timers.append(self._mending)
        if self._traffic is not None:
            await self._traffic.stop()
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)
        await self.control.stop()
        await self._connector.stop()
        await self.identity.stop()
        await self._admin.stop()
        if self.tracing is not None:
            await self.tracing.stop()
        log.info("stopped", worker=self._index)

    async def _drain_link(self, deadline: float) -> None:
        if not self.link.ready:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self.link.drain()
                while self.durable.backlog():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            waiting = self.link.backlog + self.durable.backlog()
            log.warning("NATS did not confirm everything in time", bytes=waiting)

    async def _every(self, period: float, action: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(period)
            try:
                action()
            except Exception:
                # Time-outs must go on for everybody else.
                log.exception("a periodic check failed", check=action.__name__)

    def _expire(self) -> None:
        for table in self.pending.values():
            table.expire(self._loop.time())
        for _, _, _, socket, _ in self._datagrams:
            socket.check()
        self.durable.check()
        if self.tracing is not None:
            self.tracing.tracer.expire()

    def _check(self) -> None:
        self.link.check()
        self._mqtt_sessions.expire(self._loop.time())
        self.sessions.look_for_idle(self._loop.time())
        for _, _, _, listener in self._listeners:
            listener.check()
        if any(lane.stalled for lane in self.durable.lanes) and (
            self._mending is None or self._mending.done()
        ):
            self._mending = self._loop.create_task(self._mend_streams(), name="streams")

    async def _mend_streams(self) -> None:
        """Make what is missing: a stream in memory dies with its server, and a stream may be removed."""
        try:
            await self._streams.ensure()
        except StreamError as error:
            log.error("a stream cannot be used", error=error.detail)


def _routing_of(config: Config) -> tuple[dict[str, frozenset[str]], dict[str, bool], dict[str, str]]:
    """What routes are made by: extension instances of application versions, their awareness, and tenants."""
    return (
        {version.name: version.allowed for version in config.app_versions.values()},
        {instance.name: instance.endpoint_aware for instance in config.extension_instances.values()},
        {version.name: version.tenant for version in config.app_versions.values() if version.tenant},
    )


def owners_of(config: Config) -> dict[str, Owner]:
    """Tenant and application of each application version; the tenant of an application that has none is empty."""
    return {
        name: Owner(version.tenant or "", version.application)
        for name, version in config.app_versions.items()
    }
