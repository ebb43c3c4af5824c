"""One worker: builds everything from a configuration, starts it in order, and drains it.

The composition root: it names the parts of all layers and connects them. What does not live here: the listeners and
protocol servers (`kaa_gateway.app.transports`), processes (`kaa_gateway.app.running`) and signals
(`kaa_gateway.app.serving`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Any

import structlog

from kaa_gateway import logs
from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.api import WorkerApi
from kaa_gateway.admin.history import PERIOD as HISTORY_PERIOD
from kaa_gateway.admin.history import History
from kaa_gateway.admin.metrics import registry_of
from kaa_gateway.admin.replica_routes import ReplicaRoutes
from kaa_gateway.admin.replicas_api import ReplicasApi
from kaa_gateway.admin.server import AdminServer
from kaa_gateway.app.bridge import BridgeCollector, make_bridge, queues_of_bridge
from kaa_gateway.app.draining import drain_nats, drain_requests
from kaa_gateway.app.garbage import COLLECT_PERIOD, GarbageCollection
from kaa_gateway.app.identity import configure_identity, make_identity
from kaa_gateway.app.limits import admission_limits_of, mqtt_limits_of
from kaa_gateway.app.listener_builder import ListenerBuilder
from kaa_gateway.app.nats_connections import NatsConnections
from kaa_gateway.app.periodic import BackgroundTasks
from kaa_gateway.app.presence import make_presence
from kaa_gateway.app.queues import queues_of
from kaa_gateway.app.quotas import SharedQuotas
from kaa_gateway.app.redirecting import redirect_clients
from kaa_gateway.app.replica import WorkerReplica
from kaa_gateway.app.routing import owners_of, quotas_of, routing_of
from kaa_gateway.app.stored_sessions import make_stored_sessions
from kaa_gateway.app.stream_repair import StreamRepair
from kaa_gateway.app.traffic import make_traffic_reports
from kaa_gateway.app.transports.coap import build_coap
from kaa_gateway.app.transports.coap_streams import build_coap_streams
from kaa_gateway.app.transports.http import build_http
from kaa_gateway.app.transports.kpudp import build_kpudp
from kaa_gateway.app.transports.mqtt import build_mqtt
from kaa_gateway.app.transports.mqtt_sn import build_mqtt_sn
from kaa_gateway.app.transports.plugins import build_plugins
from kaa_gateway.bus import subjects
from kaa_gateway.counters import Counters
from kaa_gateway.fleet.directory import SessionDirectory
from kaa_gateway.fleet.member import Member
from kaa_gateway.fleet.nats_channel import NatsChannel
from kaa_gateway.fleet.offers import give_away
from kaa_gateway.fleet.replicas import Replicas
from kaa_gateway.fleet.worker_channel import WorkerChannel
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.downlink import Downlink
from kaa_gateway.kp.inspection import Inspection
from kaa_gateway.kp.revocation import Revocation
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.lifecycle.announcements import Announcements
from kaa_gateway.lifecycle.connectivity import Connectivity
from kaa_gateway.mqtt.session_store import MqttSessionStore
from kaa_gateway.net.admission import Admission
from kaa_gateway.net.certificates import watch
from kaa_gateway.net.input_memory import InputMemory
from kaa_gateway.net.ports import port_errors
from kaa_gateway.slices import Slices

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kaa_gateway.app.listeners import Listeners
    from kaa_gateway.app.shared_sockets import BoundSockets
    from kaa_gateway.app.tracing import Tracing
    from kaa_gateway.config import Config
    from kaa_gateway.kp.pending import PendingRequests
    from kaa_gateway.net.certificates import ServerCredentials

log = structlog.get_logger("gateway")

RETRY_PERIOD = 5.0
"""Seconds between attempts to identify who subscribed while no identity provider could tell."""
CHECK_PERIOD = 1.0
"""Seconds between looks at what depends on time: keep-alive, half-open connections, a silent NATS server."""
EXPIRY_PERIOD = 0.1
"""Seconds between looks for requests that nobody has answered in time."""
ANSWER_GRACE = 1.0
"""Seconds after the longest time-out of a request until its trace has timed out as well."""
CLOSING_MARGIN = 3.0
"""Seconds of the graceful-shutdown time that are left when the last client was sent away."""
LINK_POLL = 0.01
"""Seconds between looks whether NATS is connected, at the start."""


class Worker:
    """One event loop's worth of gateway.

    `index` tells the workers of a supervisor apart, from 0; those serve management on `admin_socket`, a Unix socket
    that the supervisor asks. A worker on its own serves it on `server.port`.
    """

    def __init__(
        self,
        config: Config,
        index: int = 0,
        admin_socket: Path | None = None,
        bound: BoundSockets | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._index = index
        self._admin_socket = admin_socket
        self._bound = bound or {}
        self._name = config.service.instance.name
        replica_id = config.service.instance.replica.id
        self._replica_id = f"{replica_id}-{index}" if config.workers > 1 else replica_id
        self._reply_to = subjects.replica(self._replica_id, "esp", subjects.EXTENSION_DATA)
        self.counters = Counters()

        # bus
        nats = NatsConnections(self._loop, config, self._replica_id, self._reply_to)
        self.link = nats.link
        self.control = nats.control
        self._connector = nats.connector
        self._streams = nats.streams

        # identity, lifecycle
        self.identity = make_identity(config, self.control, self._replica_id)
        self._connectivity = Connectivity(self.control, self._name, self._replica_id)

        # 1/KP
        limits = config.limits
        self._slices = Slices(self._loop)
        self.sessions = Sessions(
            self.counters,
            self._slices,
            self._connectivity,
            limits.endpoints_per_connection,
            idle_timeout=config.events.idle_timeout,
            watched_max=config.events.idle_endpoints,
        )
        self._traffic = make_traffic_reports(config, self.control, self._replica_id, self.sessions.endpoints)
        self._presence = make_presence(
            config, self.control, self._replica_id, self.sessions, self._connectivity, self._traffic
        )
        self.router = Router(
            self.sessions,
            *routing_of(config),
            self._replica_id,
            limits.route_cache,
            limits.topic_length,
        )
        self.router.set_quotas(*quotas_of(config))
        self._revocation = Revocation(self.sessions)
        self.identity.bind(self._revocation, self.router, self._slices)
        correlator = Correlator(secrets.randbits(24), secrets.randbits(32))
        self.uplink = Uplink(
            self.link,
            self.router,
            self.sessions,
            correlator,
            self.counters,
            self.identity.resolve,
            limits.waiting_messages,
            limits.waiting_bytes,
        )
        self.downlink = Downlink(self.uplink, self.router, self.sessions, correlator, self.counters)
        self.link.set_listener(self.downlink)
        self.durable = nats.make_lanes(self.downlink)
        self.downlink.set_durable(self.durable)
        self.router.set_durable(self.durable)
        self._stream_repair = StreamRepair(self._streams, self.durable)
        self.tracing = self._make_tracing()

        # fleet
        self._shared_quotas = SharedQuotas(
            config, self.control, self._replica_id, self.sessions.quotas, self.counters
        )
        self.directory = SessionDirectory(
            self.link,
            self._slices,
            self.counters,
            instance=self._name,
            replica_id=self._replica_id,
            timeout=config.transports.mqtt.takeover_timeout,
        )

        self._stored_sessions = make_stored_sessions(
            config, self.link, self.control, self.counters, self._replica_id
        )
        self.session_storage = None if self._stored_sessions is None else self._stored_sessions.storage
        self.directory.set_storage(self.session_storage)

        # transports
        self.input_memory = InputMemory(limits.input_memory)
        self.admission = Admission(
            self.counters,
            **admission_limits_of(limits),
        )
        self._mqtt_limits = mqtt_limits_of(config)
        self._mqtt_sessions = MqttSessionStore(self.sessions, self._mqtt_limits, self.directory)
        self._mqtt_sessions.set_downlink(self.downlink)
        self._mqtt_sessions.set_storage(self.session_storage)
        self._listeners = self._make_listeners()
        self._listeners.set_limits(limits)
        self.pending: dict[str, PendingRequests] = self._listeners.pending
        """Requests that wait for an extension, by protocol."""
        self.credentials: list[ServerCredentials[Any]] = self._listeners.credentials
        """Of the listeners that encrypt."""
        self.ports: dict[str, int] = {}
        """The ports of the listeners that have started, by name."""

        self._bridge = make_bridge(
            config,
            self._replica_id,
            uplink=self.uplink,
            sessions=self.sessions,
            router=self.router,
            counters=self.counters,
            control=self.control,
        )
        if self._bridge is not None:
            self._listeners.queues += queues_of_bridge(self._bridge, config.bridge)

        # management
        self.queues = queues_of(
            lambda: self._config,
            link=self.link,
            control=self.control,
            identity=self.identity,
            input_memory=self.input_memory,
            mqtt_sessions=self._mqtt_sessions,
            durable=self.durable,
            listeners=self._listeners,
            tracing=self.tracing,
        )
        self.registry = registry_of(self)
        self._garbage = GarbageCollection()
        self.registry.register(self._garbage)
        if self._bridge is not None:
            self.registry.register(BridgeCollector(self._bridge))
        guard = Guard.from_file(config.server.token_file if admin_socket is None else None)
        self._history = History(self)
        self._replica = WorkerReplica(
            self._replica_id,
            self._listeners,
            self.sessions,
            Inspection(self.sessions),
            self.counters,
            lambda: self._config.limits,
            lambda: self.control.event_size_max,
        )
        member = Member(self._replica_id, self._replica)
        member.serve(self.control, self._name)
        channel = WorkerChannel(member, NatsChannel(self.control, self._name))
        routes = WorkerApi(lambda: self._config, self._history, self._shared_quotas.describe).routes()
        if admin_socket is None:
            routes += ReplicasApi(Replicas(channel)).routes()
        else:
            routes += ReplicaRoutes(channel).routes()
        self._admin = AdminServer(self.registry, self._obstacles, routes, guard)
        self._serving = False
        self._background = BackgroundTasks(self._loop)

    # ------------------------------------------------------------ parts

    def _make_tracing(self) -> Tracing | None:
        if not self._config.tracing.enabled or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        # An extra, which costs memory and the time to import it.
        from kaa_gateway.app.tracing import Tracing

        transports = self._config.transports
        slowest = max(each.response_timeout for each in (transports.http, transports.coap, transports.udp))
        tracing = Tracing(self._config.tracing, self._name, self._replica_id, slowest + ANSWER_GRACE)
        self.uplink.set_tracer(tracing.tracer)
        self.downlink.set_traces(tracing.tracer.traces)
        return tracing

    def _make_listeners(self) -> Listeners:
        builder = ListenerBuilder(
            self._loop,
            self._config,
            uplink=self.uplink,
            sessions=self.sessions,
            counters=self.counters,
            authenticator=self.identity.authenticator,
            known_clients=self.identity.known_clients,
            input_memory=self.input_memory,
            admission=self.admission,
            worker=self._index,
        )
        build_mqtt(builder, self._mqtt_sessions, self._mqtt_limits)
        build_http(builder)
        build_coap(builder)
        build_coap_streams(builder)
        build_kpudp(builder)
        build_mqtt_sn(builder, self._mqtt_sessions, self._mqtt_limits)
        build_plugins(builder)
        return builder.listeners

    # ------------------------------------------------------------ life

    @property
    def is_ready(self) -> bool:
        """Return whether devices are served: the listeners are open and NATS is connected."""
        return not self._obstacles()

    def _lacks_broker(self) -> bool:
        """Return whether this is a bridge and nothing else, and its broker is away."""
        alone = not self._listeners.streams and not self._listeners.datagrams
        return self._bridge is not None and alone and not self._bridge.is_connected

    def _obstacles(self) -> list[str]:
        """Return in words what keeps devices from being served."""
        return [
            sentence
            for sentence, holds in (
                ("The listeners are not open", not self._serving),
                ("The replica is draining", self._replica.draining),
                ("NATS is not connected", not self.link.ready),
                ("The broker is not connected", self._lacks_broker()),
                (
                    "The NATS control connection, which identity needs, is not there",
                    self.identity.needs_control and not self.control.connected,
                ),
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
            with port_errors("server.port", self._config.server.port):
                await self._admin.start(host, self._config.server.port)
            self.ports["admin"] = self._admin.port
        self._connector.start()
        self.control.start()
        self._background.every(EXPIRY_PERIOD, self._expire)
        self._background.every(CHECK_PERIOD, self._check)
        self._background.every(HISTORY_PERIOD, self._history.sample)
        self._background.every(COLLECT_PERIOD, self._collect_garbage)
        self._background.every(RETRY_PERIOD, lambda: self._slices.run(self.uplink.identification.retry()))
        self._background.run(watch(self.credentials))
        if self._stored_sessions is not None:
            self._background.run(self._stored_sessions.run())
        while not self.link.ready:
            await asyncio.sleep(LINK_POLL)
        await self._streams.ensure()
        reuse_port = self._config.workers > 1
        for name, port in self._listeners.start(host, reuse_port=reuse_port, bound=self._bound):
            self.ports[name] = port
        self._shared_quotas.start()
        if self._traffic is not None:
            self._traffic.start()
        if self._presence is not None:
            self._presence.start()
        self._garbage.begin()
        self._serving = True
        if self._bridge is not None:
            self._bridge.start()
        log.info("serving devices", worker=self._index, **self.ports)

    def subscribe_announcements(self, announce: Callable[[], None]) -> None:
        """Call `announce` when the cluster says that the configuration has changed. Call this before `start`."""
        Announcements(self.control, self.counters, self._name, announce)

    async def reconfigure(self, config: Config) -> None:
        """Apply another configuration, which differs only in keys that `kaa_gateway.app.changes` can apply.

        Sessions that it allows go on. Sessions lose the endpoints of removed application versions; a session left
        without endpoints is closed.
        """
        if config.log.level != self._config.log.level:
            # Else one that was set by hand stays.
            logs.set_level(config.log.level)
        self._config = config
        limits = config.limits
        self.sessions.set_limit(limits.endpoints_per_connection)
        self.router.set_limits(limits.route_cache, limits.topic_length)
        self.uplink.identification.set_limits(limits.waiting_messages, limits.waiting_bytes)
        self._mqtt_limits.set_sizes(limits.output_buffer, limits.topic_length)
        self.input_memory.set_limit(limits.input_memory)
        self.admission.set_limits(**admission_limits_of(limits))
        self._listeners.set_limits(limits)
        self._listeners.set_transports(config.transports)
        if self._traffic is not None:
            self._traffic.add_owners(owners_of(config))
        configure_identity(self.identity, config)
        routing = routing_of(config)
        gone = self.router.configure(*routing)
        self.router.set_quotas(*quotas_of(config))
        self._listeners.list_links(routing.app_versions)
        self._slices.run(self.router.sweep())
        ended = await self._slices.finish(self._revocation.withdraw(gone, "not_configured"))
        log.info("configuration applied", worker=self._index, sessions_ended=ended)

    async def stop(self) -> None:
        """Drain: accept no more, finish what is in flight within the graceful-shutdown time, close."""
        deadline = self._loop.time() + self._config.service.graceful_shutdown
        self._serving = False
        self._replica.draining = True
        await self._replica.stop()
        self._listeners.stop_accepting()
        if rate := self._config.limits.redirects_per_second:
            await redirect_clients(self._listeners, rate, deadline=deadline - CLOSING_MARGIN)
        self._listeners.begin_drain()
        if self._bridge is not None:
            await self._bridge.stop(deadline)
        await drain_requests(self._listeners, deadline)
        await drain_nats(self.link, self.durable, deadline)
        await self._listeners.stop()
        self._mqtt_sessions.end_wills()
        # Closing connections has published wills.
        await drain_nats(self.link, self.durable, deadline)
        await give_away(self.directory, self._mqtt_sessions.offers, deadline)
        if self.session_storage is not None:
            await self.session_storage.finish(deadline)
        self.sessions.presence.end()
        self._connectivity.flush()
        if self._traffic is not None:
            await self._traffic.stop()
        async with asyncio.TaskGroup() as ending:
            # Beside each other: each waits for NATS, which may hang.
            if self._presence is not None:
                ending.create_task(self._presence.stop())
            ending.create_task(self._shared_quotas.stop())
        await self._background.stop()
        await self._stream_repair.stop()
        await self.control.stop()
        await self._connector.stop()
        await self.identity.stop()
        await self._admin.stop()
        if self.tracing is not None:
            await self.tracing.stop()
        self._garbage.end()
        log.info("stopped", worker=self._index)

    def _expire(self) -> None:
        self._expire_requests()
        self._check_datagrams()
        self.durable.check()
        self.directory.check()
        if self.session_storage is not None:
            self.session_storage.check()
        if self.tracing is not None:
            self.tracing.tracer.expire()

    def _expire_requests(self) -> None:
        if self._listeners.expire(self._loop.time()):
            self._loop.call_soon(self._expire_requests)

    def _check_datagrams(self) -> None:
        if self._listeners.check_datagrams():
            self._loop.call_soon(self._check_datagrams)

    def _check_connections(self) -> None:
        if self._listeners.check_connections():
            self._loop.call_soon(self._check_connections)

    def _expire_mqtt_sessions(self) -> None:
        if self._mqtt_sessions.expire(self._loop.time()):
            self._loop.call_soon(self._expire_mqtt_sessions)

    def _collect_garbage(self) -> None:
        self._garbage.collect_if_due(len(self.sessions.endpoints) + self.sessions.count)

    def _look_for_idle(self) -> None:
        if self.sessions.presence.look_for_idle(self._loop.time()):
            self._loop.call_soon(self._look_for_idle)

    def _check(self) -> None:
        self.link.check()
        self._expire_mqtt_sessions()
        self._mqtt_sessions.publish_wills(self._loop.time())
        self.downlink.departures.expire(self._loop.time())
        self._look_for_idle()
        self._check_connections()
        self._stream_repair.check()
