"""Makes the listeners of one worker, with what all of them share: admission, proxies, credentials and limits.

What does not live here: which listeners there are, and what serves them (`kaa_gateway.app.transports`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.app import encryption
from kaa_gateway.app.listeners import DatagramListener, Listeners, StreamListener
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.net.dtls import DtlsSocket
from kaa_gateway.net.proxy import ProxyProtocol
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.tls import TlsListener
from kaa_gateway.net.udp import UdpSocket

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from kaa_gateway.app.listeners import DatagramServer
    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import DatagramTls, StreamTls
    from kaa_gateway.counters import Counters
    from kaa_gateway.identity.clients import Authenticator, Client
    from kaa_gateway.identity.known_clients import KnownClients
    from kaa_gateway.kp.sessions import Sessions
    from kaa_gateway.kp.uplink import Uplink
    from kaa_gateway.net.admission import Admission
    from kaa_gateway.net.input_memory import InputMemory
    from kaa_gateway.net.transport import ProtocolServer
    from kaa_gateway.wire.certificate import ClientCertificate


def protocol_of(path: tuple[str, ...]) -> str:
    """Return the name of a listener's protocol, as metrics have it. `path` is where its section stands."""
    return path[1] if path[0] == "protocols" else path[0]


class ListenerBuilder:
    """Adds listeners to `listeners`. What the servers of the protocols need of the worker are its attributes.

    In all methods, `name` is the listener's name in logs and metrics, and `path` is where its section stands below
    kaa.kpc.transports.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        *,
        uplink: Uplink,
        sessions: Sessions,
        counters: Counters,
        authenticator: Authenticator,
        known_clients: KnownClients | None,
        input_memory: InputMemory,
        admission: Admission,
        worker: int,
    ) -> None:
        self.loop = loop
        self.worker = worker
        self.config = config
        self.uplink = uplink
        self.sessions = sessions
        self.counters = counters
        self.authenticator = authenticator
        self.known_clients = known_clients
        self.input_memory = input_memory
        self.listeners = Listeners()
        self._admission = admission
        proxy = config.transports.proxy_protocol
        self._proxy: ProxyProtocol | None = None
        if proxy.trusted_sources:
            self._proxy = ProxyProtocol(
                proxy.trusted_sources,
                refuses_others=proxy.other_sources == "refuse",
                header_timeout=proxy.header_timeout,
            )

    def add_stream(self, name: str, path: tuple[str, ...], port: int, server: ProtocolServer) -> None:
        """Add a listener for TCP connections."""
        limits = self.config.limits
        socket = TcpListener(
            self.loop,
            server,
            self.counters,
            protocol=protocol_of(path),
            output_max=limits.output_buffer,
            connections_max=limits.connections,
            admission=self._admission,
        )
        self._add_stream(name, path, port, socket)

    def add_tls(
        self,
        name: str,
        path: tuple[str, ...],
        settings: StreamTls,
        server: ProtocolServer,
    ) -> None:
        """Add a listener for TLS connections. Raises ConfigError."""
        limits = self.config.limits
        credentials = encryption.stream_credentials(path, settings)
        self.listeners.credentials.append(credentials)
        socket = TlsListener(
            self.loop,
            server,
            self.counters,
            protocol=protocol_of(path),
            output_max=limits.output_buffer,
            connections_max=limits.connections,
            admission=self._admission,
            credentials=credentials,
            handshake_timeout=settings.handshake_timeout,
            handshakes_max=settings.handshakes,
        )
        self._add_stream(name, path, settings.port, socket)

    def add_udp(
        self,
        name: str,
        path: tuple[str, ...],
        port: int,
        core: DatagramServer,
        *,
        multicast_interfaces: tuple[str, ...] = (),
    ) -> UdpSocket:
        """Add a listener for datagrams, and return its socket."""
        socket = UdpSocket(self.loop, core, self.counters)
        self.add_datagrams(name, path, port, socket, core, multicast_interfaces=multicast_interfaces)
        return socket

    def add_dtls(
        self,
        name: str,
        path: tuple[str, ...],
        settings: DatagramTls,
        core: DatagramServer,
        client_of: Callable[[str | None, ClientCertificate | None], Client | asyncio.Future[Client]],
    ) -> None:
        """Add a listener for DTLS; `client_of` admits the clients of sessions. Raises ConfigError."""
        credentials = encryption.datagram_credentials(path, settings)
        self.listeners.credentials.append(credentials)
        socket = DtlsSocket(
            self.loop,
            core,
            self.counters,
            credentials,
            client_of,
            protocol=protocol_of(path),
            handshake_timeout=settings.handshake_timeout,
            session_timeout=settings.session_timeout,
            handshakes_max=settings.handshakes,
            sessions_max=settings.sessions,
        )
        self.add_datagrams(name, path, settings.port, socket, core)

    def add_datagrams(
        self,
        name: str,
        path: tuple[str, ...],
        port: int,
        socket: UdpSocket,
        core: DatagramServer,
        *,
        multicast_interfaces: tuple[str, ...] = (),
    ) -> None:
        """Add a listener with a socket that was made for it."""
        socket.limit(self._admission)
        self._use_proxy(name, path, socket)
        self.listeners.datagrams.append(
            DatagramListener(
                name=name,
                path=path,
                port=port,
                socket=socket,
                core=core,
                multicast_interfaces=multicast_interfaces,
            )
        )

    def pending_requests(self, protocol: str, timeout: float) -> PendingRequests:
        """Return a table for the requests of a protocol that wait for an extension."""
        pending = PendingRequests(self.config.limits.pending_requests, timeout)
        self.listeners.pending[protocol] = pending
        return pending

    def _add_stream(self, name: str, path: tuple[str, ...], port: int, socket: TcpListener) -> None:
        self._use_proxy(name, path, socket)
        self.listeners.streams.append(StreamListener(name=name, path=path, port=port, socket=socket))

    def _use_proxy(self, name: str, path: tuple[str, ...], socket: TcpListener | UdpSocket) -> None:
        """Let a listener speak the PROXY protocol, if it is to."""
        transports = self.config.transports
        if path[0] == "protocols":
            wanted = transports.protocols[path[1]].proxy_protocol
        else:
            wanted = name in transports.proxy_protocol.listeners
        if self._proxy is not None and wanted:
            socket.use_proxy_protocol(self._proxy)
