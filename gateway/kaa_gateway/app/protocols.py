"""The protocol servers of one worker, and the listeners that they serve, built from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.app import encryption, plugins
from kaa_gateway.app.listeners import DatagramListener, Listeners, StreamListener, section_of
from kaa_gateway.coap.clients import dtls_clients, tls_clients
from kaa_gateway.coap.server import CoapServer
from kaa_gateway.coap.stream_server import CoapStreamServer
from kaa_gateway.errors import ConfigError
from kaa_gateway.http.parser import RequestLimits
from kaa_gateway.http.server import HttpServer
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kpudp.secure_socket import SecureSocket
from kaa_gateway.kpudp.server import KpudpServer
from kaa_gateway.mqtt.server import MqttServer
from kaa_gateway.mqtt_sn.server import MqttSnServer
from kaa_gateway.mqtt_sn.settings import MqttSnSettings
from kaa_gateway.net.dtls import DtlsSocket
from kaa_gateway.net.proxy import ProxyProtocol
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.tls import TlsListener
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.net.websocket import WebSocketServer
from kaa_gateway.plugins.datagrams import DatagramPeers
from kaa_gateway.plugins.server import PluginServer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import (
        CoapTcp,
        CoapTls,
        CoapWebSocket,
        CoapWebSocketTls,
        PluginProtocol,
        StreamTls,
    )
    from kaa_gateway.counters import Counters
    from kaa_gateway.identity.clients import Authenticator
    from kaa_gateway.kp.sessions import Sessions
    from kaa_gateway.kp.uplink import Uplink
    from kaa_gateway.mqtt.limits import MqttLimits
    from kaa_gateway.mqtt.session_store import MqttSessionStore
    from kaa_gateway.net.admission import Admission
    from kaa_gateway.net.input_memory import InputMemory
    from kaa_gateway.net.transport import ProtocolCore, Transport


COAP_PATHS = ("/.well-known/coap",)
"""Where CoAP over WebSocket is (RFC 8323 section 4.1)."""
COAP_SUBPROTOCOLS = (b"coap",)


def protocol_of(path: tuple[str, ...]) -> str:
    """Return the name of a listener's protocol, as metrics have it. `path` is where its section stands."""
    return path[1] if path[0] == "protocols" else path[0]


class Protocols:
    """Builds the listeners of a worker; `build_*` add those of one protocol to `listeners`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        *,
        uplink: Uplink,
        sessions: Sessions,
        counters: Counters,
        authenticator: Authenticator,
        input_memory: InputMemory,
        admission: Admission,
        worker: int,
    ) -> None:
        self._loop = loop
        self._worker = worker
        self._config = config
        self._uplink = uplink
        self._sessions = sessions
        self._counters = counters
        self._authenticator = authenticator
        self._input_memory = input_memory
        self._admission = admission
        self.listeners = Listeners()
        proxy = config.transports.proxy_protocol
        self._proxy: ProxyProtocol | None = None
        if proxy.trusted_sources:
            self._proxy = ProxyProtocol(
                proxy.trusted_sources,
                refuses_others=proxy.other_sources == "refuse",
                header_timeout=proxy.header_timeout,
            )

    def build_mqtt(self, mqtt_sessions: MqttSessionStore, mqtt_limits: MqttLimits) -> None:
        """Add MQTT over TCP, TLS and WebSocket."""
        mqtt = self._config.transports.mqtt
        websocket = mqtt.websocket
        if not (mqtt.tcp.enabled or mqtt.tls.enabled or websocket.enabled or websocket.tls.enabled):
            return
        server = MqttServer(
            self._loop,
            self._uplink,
            self._sessions,
            mqtt_sessions,
            self._counters,
            self._authenticator,
            mqtt_limits,
            packet_size_max=mqtt.max_packet_size,
            connect_timeout=mqtt.connect_timeout,
            keep_alive_max=mqtt.max_keep_alive,
            receive_maximum=mqtt.receive_maximum,
            topic_alias_maximum=mqtt.topic_alias_maximum,
            server_reference=mqtt.server_reference,
            refuse_control_characters=mqtt.refuse_control_characters,
        )
        server.limit(self._input_memory)
        if mqtt.tcp.enabled:
            self._listen("mqtt", ("mqtt", "tcp"), mqtt.tcp.port, server.connect)
        if mqtt.tls.enabled:
            self._listen_tls("mqtts", ("mqtt", "tls"), mqtt.tls, server.connect)
        websocket_server = WebSocketServer(
            self._loop,
            server.connect,
            self._counters,
            paths=websocket.paths,
            frame_size_max=websocket.max_frame_size,
            handshake_timeout=websocket.handshake_timeout,
        )
        if websocket.enabled:
            self._listen("ws", ("mqtt", "websocket"), websocket.port, websocket_server.connect)
        if websocket.tls.enabled:
            self._listen_tls("wss", ("mqtt", "websocket", "tls"), websocket.tls, websocket_server.connect)

    def build_http(self) -> None:
        """Add HTTP and HTTPS."""
        http = self._config.transports.http
        if not (http.enabled or http.tls.enabled):
            return
        server = HttpServer(
            self._loop,
            self._uplink,
            self._sessions,
            self._pending_requests("http", http.response_timeout),
            self._counters,
            self._authenticator,
            RequestLimits(http.max_body_size, http.max_header_size, http.max_url_length),
            client_authentication=http.client_authentication,
            path_prefix=http.path_prefix,
            allowed_origins=http.allowed_origins,
            read_timeout=http.read_timeout,
            keep_alive_timeout=http.keep_alive_timeout,
            pipelined_requests=http.pipelined_requests,
            max_wait=http.max_wait,
        )
        server.limit(self._input_memory)
        self.listeners.http = server
        if http.enabled:
            self._listen("http", ("http",), http.port, server.connect)
        if http.tls.enabled:
            self._listen_tls("https", ("http", "tls"), http.tls, server.connect)

    def build_coap(self) -> None:
        """Add CoAP over UDP and DTLS."""
        coap = self._config.transports.coap
        if coap.enabled:
            core = self._coap_server("coap", require_echo=coap.require_echo)
            socket = UdpSocket(self._loop, core, self._counters)
            socket.limit(self._admission)
            self._use_proxy("coap", socket)
            groups: tuple[str, ...] = ()
            if self._worker == 0:  # one worker answers for all
                groups = coap.multicast_interfaces
                core.answer_multicast(coap.multicast_leisure)
            self.listeners.datagrams.append(
                DatagramListener(
                    name="coap",
                    path=("coap",),
                    port=coap.port,
                    socket=socket,
                    core=core,
                    multicast_interfaces=groups,
                )
            )
        if coap.dtls.enabled:
            path = ("coap", "dtls")
            # A cookie has proved the address of each of its peers.
            core = self._coap_server("coaps", require_echo=False)
            credentials = encryption.datagram_credentials(path, coap.dtls)
            self.listeners.credentials.append(credentials)
            dtls_socket = DtlsSocket(
                self._loop,
                core,
                self._counters,
                credentials,
                dtls_clients(self._authenticator, "coap"),
                protocol="coap",
                handshake_timeout=coap.dtls.handshake_timeout,
                session_timeout=coap.dtls.session_timeout,
                handshakes_max=coap.dtls.handshakes,
                sessions_max=coap.dtls.sessions,
            )
            dtls_socket.limit(self._admission)
            self._use_proxy("coaps", dtls_socket)
            self.listeners.datagrams.append(
                DatagramListener(name="coaps", path=path, port=coap.dtls.port, socket=dtls_socket, core=core)
            )

    def build_coap_streams(self) -> None:
        """Add CoAP over TCP, TLS and WebSocket."""
        coap = self._config.transports.coap
        if coap.tcp.enabled:
            server = self._coap_stream_server("coap+tcp", coap.tcp)
            self._listen("coap+tcp", ("coap", "tcp"), coap.tcp.port, server.connect)
        if coap.tls.enabled:
            server = self._coap_stream_server("coaps+tcp", coap.tls)
            self._listen_tls("coaps+tcp", ("coap", "tls"), coap.tls, server.connect)
        websocket = coap.websocket
        if websocket.enabled:
            server = self._coap_stream_server("coap+ws", websocket)
            self._listen(
                "coap+ws", ("coap", "websocket"), websocket.port, self._coap_websocket(server).connect
            )
        if websocket.tls.enabled:
            server = self._coap_stream_server("coaps+ws", websocket.tls)
            connect = self._coap_websocket(server).connect
            self._listen_tls("coaps+ws", ("coap", "websocket", "tls"), websocket.tls, connect)

    def build_kpudp(self) -> None:
        """Add KP/UDP, plain and encrypted. Raises ConfigError."""
        udp = self._config.transports.udp
        if udp.enabled:
            core = self._kpudp_server("udp")
            socket = UdpSocket(self._loop, core, self._counters)
            self._add_datagrams("udp", ("udp",), udp.port, socket, core)
        if udp.secure.enabled:
            keys = encryption.shared_keys(udp.secure)
            core = self._kpudp_server("udps")
            try:
                secure_socket = SecureSocket(
                    self._loop,
                    core,
                    self._counters,
                    keys,
                    worker=self._worker,
                    session_timeout=udp.secure.session_timeout,
                    sessions_max=udp.secure.sessions,
                )
            except OSError as error:
                key = f"{section_of(('udp', 'secure'))}.enabled"
                raise ConfigError("tls_unusable", f"{key}: {error}") from None
            self.listeners.credentials.append(keys)
            self.listeners.queues.append(
                Queue("udps_sessions", secure_socket.session_count, lambda: udp.secure.sessions)
            )
            self._add_datagrams("udps", ("udp", "secure"), udp.secure.port, secure_socket, core)

    def _kpudp_server(self, name: str) -> KpudpServer:
        udp = self._config.transports.udp
        core = KpudpServer(
            self._loop,
            self._uplink,
            self._sessions,
            self._pending_requests(name, udp.response_timeout),
            self._counters,
            peers=udp.peers,
            peer_timeout=udp.peer_timeout,
            ack_timeout=udp.ack_timeout,
            unacknowledged=udp.unacknowledged,
        )
        self.listeners.queues += [
            Queue(f"{name}_peers", lambda: sum(core.peers.counts()), lambda: udp.peers),
            Queue(f"{name}_unacknowledged", core.unacknowledged, lambda: udp.unacknowledged),
        ]
        return core

    def build_mqtt_sn(self, mqtt_sessions: MqttSessionStore, mqtt_limits: MqttLimits) -> None:
        """Add MQTT-SN over UDP and DTLS."""
        keys = self._config.transports.mqtt_sn
        if not (keys.enabled or keys.dtls.enabled):
            return
        mqtt = self._config.transports.mqtt
        server = MqttServer(
            self._loop,
            self._uplink,
            self._sessions,
            mqtt_sessions,
            self._counters,
            self._authenticator,
            mqtt_limits,
            packet_size_max=mqtt.max_packet_size,
            connect_timeout=keys.connect_timeout,
            keep_alive_max=keys.max_keep_alive,
            refuse_control_characters=mqtt.refuse_control_characters,
            protocol="mqtt-sn",
        )
        server.limit(self._input_memory)
        settings = MqttSnSettings(
            gateway_id=keys.gateway_id,
            retry_timeout=keys.retry_timeout,
            retries=keys.retries,
            connect_timeout=keys.connect_timeout,
            peers=keys.peers,
            topics=keys.registered_topics,
            buffered_messages=keys.buffered_messages,
            buffered_bytes=keys.buffered_bytes,
            message_size=keys.max_message_size,
            predefined={
                int(number): topic
                for number, topic in (entry.split("=", 1) for entry in keys.predefined_topics)
            },
        )
        if keys.enabled:
            core = MqttSnServer(self._loop, server, self._uplink, self._counters, settings, encrypted=False)
            socket = UdpSocket(self._loop, core, self._counters)
            self._add_datagrams("mqtt-sn", ("mqtt-sn",), keys.port, socket, core)
            self.listeners.queues += [
                Queue("mqtt_sn_clients", core.count, lambda: keys.peers),
                Queue("mqtt_sn_sleeping_clients", core.sleeping, lambda: keys.peers),
            ]
            if keys.multicast_group is not None:
                core.advertise(keys.multicast_group, keys.port, keys.advertise_interval)
                self.listeners.groups[keys.multicast_group] = socket
        if keys.dtls.enabled:
            path = ("mqtt-sn", "dtls")
            credentials = encryption.datagram_credentials(path, keys.dtls)
            self.listeners.credentials.append(credentials)
            core = MqttSnServer(self._loop, server, self._uplink, self._counters, settings, encrypted=True)
            dtls_socket = DtlsSocket(
                self._loop,
                core,
                self._counters,
                credentials,
                dtls_clients(self._authenticator, "mqtt-sn"),
                protocol="mqtt-sn",
                handshake_timeout=keys.dtls.handshake_timeout,
                session_timeout=keys.dtls.session_timeout,
                handshakes_max=keys.dtls.handshakes,
                sessions_max=keys.dtls.sessions,
            )
            self._add_datagrams("mqtt-sns", path, keys.dtls.port, dtls_socket, core)
            self.listeners.queues.append(Queue("mqtt_sns_clients", core.count, lambda: keys.peers))

    def build_plugins(self) -> None:
        """Add the protocols of plug-ins. Raises ConfigError."""
        for name, settings in self._config.transports.protocols.items():
            server = PluginServer(
                self._loop,
                name,
                plugins.class_of(name, settings),
                self._uplink,
                self._sessions,
                self._pending_requests(name, settings.response_timeout),
                self._counters,
            )
            server.limit(self._input_memory)
            server.use_certificates(plugins.certificate_clients(self._authenticator))
            plugins.apply_settings(server, settings)
            self.listeners.plugins[name] = server
            path = ("protocols", name)
            if settings.transport == "udp":
                self._listen_for_datagrams(name, server, settings)
                continue
            if settings.enabled:
                self._listen(name, path, settings.port, server.connect)
            if settings.tls.enabled:
                self._listen_tls(f"{name}s", (*path, "tls"), settings.tls, server.connect)

    def _listen_for_datagrams(self, name: str, server: PluginServer, settings: PluginProtocol) -> None:
        path = ("protocols", name)
        if settings.enabled:
            core = DatagramPeers(server, settings.peers)
            self.listeners.queues.append(Queue(f"{name}_peers", core.count, lambda: settings.peers))
            socket = UdpSocket(self._loop, core, self._counters)
            self._add_datagrams(name, path, settings.port, socket, core)
        if settings.dtls.enabled:
            dtls_path = (*path, "dtls")
            credentials = encryption.datagram_credentials(dtls_path, settings.dtls)
            self.listeners.credentials.append(credentials)
            core = DatagramPeers(server, settings.peers)
            dtls_socket = DtlsSocket(
                self._loop,
                core,
                self._counters,
                credentials,
                plugins.dtls_clients(self._authenticator),
                protocol=name,
                handshake_timeout=settings.dtls.handshake_timeout,
                session_timeout=settings.dtls.session_timeout,
                handshakes_max=settings.dtls.handshakes,
                sessions_max=settings.dtls.sessions,
            )
            self._add_datagrams(f"{name}s", dtls_path, settings.dtls.port, dtls_socket, core)

    def _add_datagrams(
        self,
        name: str,
        path: tuple[str, ...],
        port: int,
        socket: UdpSocket,
        core: KpudpServer | DatagramPeers | MqttSnServer,
    ) -> None:
        socket.limit(self._admission)
        self._use_proxy(name, socket, path)
        self.listeners.datagrams.append(
            DatagramListener(name=name, path=path, port=port, socket=socket, core=core)
        )

    def _use_proxy(self, name: str, socket: TcpListener | UdpSocket, path: tuple[str, ...] = ()) -> None:
        """Let a listener speak the PROXY protocol, if it is to."""
        transports = self._config.transports
        if path[:1] == ("protocols",):
            wanted = transports.protocols[path[1]].proxy_protocol
        else:
            wanted = name in transports.proxy_protocol.listeners
        if self._proxy is not None and wanted:
            socket.use_proxy_protocol(self._proxy)

    def _listen(
        self, name: str, path: tuple[str, ...], port: int, connect: Callable[[Transport], ProtocolCore]
    ) -> None:
        limits = self._config.limits
        socket = TcpListener(
            self._loop,
            connect,
            self._counters,
            protocol=protocol_of(path),
            output_max=limits.output_buffer,
            connections_max=limits.connections,
            admission=self._admission,
        )
        self._use_proxy(name, socket, path)
        self.listeners.streams.append(StreamListener(name=name, path=path, port=port, socket=socket))

    def _listen_tls(
        self,
        name: str,
        path: tuple[str, ...],
        settings: StreamTls,
        connect: Callable[[Transport], ProtocolCore],
    ) -> None:
        limits = self._config.limits
        credentials = encryption.stream_credentials(path, settings)
        self.listeners.credentials.append(credentials)
        socket = TlsListener(
            self._loop,
            connect,
            self._counters,
            protocol=protocol_of(path),
            output_max=limits.output_buffer,
            connections_max=limits.connections,
            admission=self._admission,
            credentials=credentials,
            handshake_timeout=settings.handshake_timeout,
            handshakes_max=settings.handshakes,
        )
        self._use_proxy(name, socket, path)
        self.listeners.streams.append(StreamListener(name=name, path=path, port=settings.port, socket=socket))

    def _pending_requests(self, protocol: str, timeout: float) -> PendingRequests:
        pending = PendingRequests(self._config.limits.pending_requests, timeout)
        self.listeners.pending[protocol] = pending
        return pending

    def _coap_websocket(self, server: CoapStreamServer) -> WebSocketServer:
        coap = self._config.transports.coap
        return WebSocketServer(
            self._loop,
            server.connect,
            self._counters,
            paths=COAP_PATHS,
            subprotocols=COAP_SUBPROTOCOLS,
            keeps_messages=True,
            frame_size_max=2 * coap.max_body_size,  # the bound of a message is smaller, and the server's
            handshake_timeout=coap.csm_timeout,
        )

    def _coap_stream_server(
        self, name: str, settings: CoapTcp | CoapTls | CoapWebSocket | CoapWebSocketTls
    ) -> CoapStreamServer:
        """Return the server of one listener for a reliable transport; `name` is its scheme."""
        coap = self._config.transports.coap
        encrypted = name.startswith("coaps")
        server = CoapStreamServer(
            self._loop,
            self._uplink,
            self._sessions,
            self._counters,
            {version.name: version.allowed for version in self._config.app_versions.values()},
            authenticate=tls_clients(self._authenticator, name) if encrypted else None,
            alternative_address=settings.alternative_address,
            csm_timeout=coap.csm_timeout,
            ping_after=coap.ping_after,
            response_timeout=coap.response_timeout,
            pending_requests=self._config.limits.pending_requests,
            max_body_size=coap.max_body_size,
            block_memory=coap.block_memory,
            transfers_per_peer=coap.transfers_per_peer,
            outstanding_per_peer=coap.outstanding_per_peer,
            observers=coap.observers,
            observers_per_peer=coap.observers_per_peer,
            max_wait=coap.max_wait,
            requests_per_second=coap.requests_per_second,
        )
        server.limit(self._input_memory)
        label = name.replace("+", "_")
        self.listeners.coap_streams.append(server)
        self.listeners.pending[label] = server.pending
        sizes = server.table_sizes
        self.listeners.queues += [
            Queue(f"{label}_observers", lambda: sizes()["observers"], lambda: coap.observers),
            Queue(f"{label}_waits", lambda: sizes()["waits"], lambda: coap.observers),
            Queue(
                f"{label}_request_block_bytes", lambda: sizes()["requests_bytes"], lambda: coap.block_memory
            ),
            Queue(
                f"{label}_response_block_bytes", lambda: sizes()["responses_bytes"], lambda: coap.block_memory
            ),
        ]
        return server

    def _coap_server(self, name: str, *, require_echo: bool) -> CoapServer:
        coap = self._config.transports.coap
        core = CoapServer(
            self._uplink,
            self._sessions,
            self._counters,
            {version.name: version.allowed for version in self._config.app_versions.values()},
            piggyback_delay=coap.piggyback_delay,
            response_timeout=coap.response_timeout,
            ack_timeout=coap.ack_timeout,
            pending_requests=self._config.limits.pending_requests,
            max_body_size=coap.max_body_size,
            block_memory=coap.block_memory,
            transfers_per_peer=coap.transfers_per_peer,
            peers=coap.peers,
            exchanges=coap.exchanges,
            exchanges_per_peer=coap.exchanges_per_peer,
            outstanding_per_peer=coap.outstanding_per_peer,
            observers=coap.observers,
            observers_per_peer=coap.observers_per_peer,
            max_wait=coap.max_wait,
            requests_per_second=coap.requests_per_second,
            require_echo=require_echo,
            now=self._loop.time(),
        )
        self.listeners.pending[name] = core.pending
        sizes = core.table_sizes
        self.listeners.queues += [
            Queue(f"{name}_peers", lambda: sizes()["peers"], lambda: coap.peers),
            Queue(f"{name}_exchanges", lambda: sizes()["answered"], lambda: coap.exchanges),
            Queue(f"{name}_observers", lambda: sizes()["observers"], lambda: coap.observers),
            Queue(f"{name}_waits", lambda: sizes()["waits"], lambda: coap.observers),
            Queue(
                f"{name}_request_block_bytes", lambda: sizes()["requests_bytes"], lambda: coap.block_memory
            ),
            Queue(
                f"{name}_response_block_bytes", lambda: sizes()["responses_bytes"], lambda: coap.block_memory
            ),
        ]
        return core
