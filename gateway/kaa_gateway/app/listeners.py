"""The listeners of one worker: how they start, apply other limits, drain and stop.

What lives here: a listener with its place in the configuration, and what is done with all of them together. What does
not: which listeners there are and what serves their connections (`kaa_gateway.app.transports`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kaa_gateway.app.plugins import apply_settings
from kaa_gateway.coap.server import CoapServer
from kaa_gateway.kpudp.server import KpudpServer
from kaa_gateway.mqtt_sn.server import MqttSnServer
from kaa_gateway.net.ports import port_errors
from kaa_gateway.plugins.datagrams import DatagramPeers

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    from kaa_gateway.admin.metrics import Queue
    from kaa_gateway.coap.stream_server import CoapStreamServer
    from kaa_gateway.config.keys import Limits, MqttSn, Transports
    from kaa_gateway.http.server import HttpServer
    from kaa_gateway.kp.pending import PendingRequests
    from kaa_gateway.net.certificates import ServerCredentials
    from kaa_gateway.net.tcp_listener import TcpListener
    from kaa_gateway.net.udp import UdpSocket
    from kaa_gateway.plugins.server import PluginServer

DatagramServer = CoapServer | KpudpServer | DatagramPeers | MqttSnServer

CLOSE_TIMEOUT = 2.0
"""Seconds that connections have at the end to take what was written to them."""


def section_of(path: tuple[str, ...]) -> str:
    """Return the key of a listener's section in the configuration."""
    return ".".join(("kaa", "kpc", "transports", *path))


@dataclass(frozen=True, kw_only=True)
class Listener:
    """An enabled listener of the configuration."""

    name: str
    """The scheme of its addresses, and its name in logs and metrics."""
    path: tuple[str, ...]
    """Where its section stands below kaa.kpc.transports."""
    port: int
    """The configured port; 0 takes a free one."""
    socket: TcpListener | UdpSocket

    @property
    def port_key(self) -> str:
        """The key of the port."""
        return f"{section_of(self.path)}.port"


@dataclass(frozen=True, kw_only=True)
class StreamListener(Listener):
    """A listener for TCP connections."""

    socket: TcpListener


@dataclass(frozen=True, kw_only=True)
class DatagramListener(Listener):
    """A listener for datagrams, and the protocol core that takes them."""

    socket: UdpSocket
    multicast_interfaces: tuple[str, ...] = ()
    """On which it receives what is sent to All CoAP Nodes."""
    core: DatagramServer


@dataclass
class Listeners:
    """All listeners of one worker, and what was made for them."""

    streams: list[StreamListener] = field(default_factory=list)
    datagrams: list[DatagramListener] = field(default_factory=list)
    http: HttpServer | None = None
    coap_streams: list[CoapStreamServer] = field(default_factory=list)
    """The servers of CoAP over TCP, TLS and WebSocket."""
    credentials: list[ServerCredentials[Any]] = field(default_factory=list)
    """Of the listeners that encrypt."""
    pending: dict[str, PendingRequests] = field(default_factory=dict)
    """Requests that wait for an extension, by protocol."""
    plugins: dict[str, PluginServer] = field(default_factory=dict)
    """The protocols of plug-ins, by name."""
    mqtt_sn: Callable[[MqttSn], None] | None = None
    """Gives the MQTT-SN servers other settings."""
    queues: list[Queue] = field(default_factory=list)
    """Tables that devices can fill, apart from `pending` and connections."""
    groups: dict[str, UdpSocket] = field(default_factory=dict)
    """Multicast groups, and the sockets that join them."""

    def start(
        self, host: str, *, reuse_port: bool, bound: Mapping[int, socket.socket]
    ) -> Iterator[tuple[str, int]]:
        """Start each listener, and yield its name and the port that it got. Raises PortError.

        `bound` are UDP sockets by port that the supervisor has made.
        """
        for stream in self.streams:
            with port_errors(stream.port_key, stream.port):
                stream.socket.start(host, stream.port, reuse_port=reuse_port)
            yield stream.name, stream.socket.port
        for datagrams in self.datagrams:
            with port_errors(datagrams.port_key, datagrams.port):
                datagrams.socket.start(
                    host, datagrams.port, reuse_port=reuse_port, bound=bound.get(datagrams.port)
                )
            with port_errors(f"{section_of(datagrams.path)}.multicast-interfaces", datagrams.port):
                datagrams.socket.join_coap_nodes(datagrams.multicast_interfaces)
            yield datagrams.name, datagrams.socket.port
        for group, member in self.groups.items():
            member.join(group)

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits from now on."""
        for table in self.pending.values():
            table.set_capacity(limits.pending_requests)
        for listener in self.streams:
            listener.socket.set_limits(limits.output_buffer, limits.connections, limits.accepts_per_second)

    def set_transports(self, transports: Transports) -> None:
        """Apply other settings of MQTT-SN and plug-ins, as far as a running gateway can."""
        if self.mqtt_sn is not None:
            self.mqtt_sn(transports.mqtt_sn)
        for name, server in self.plugins.items():
            apply_settings(server, transports.protocols[name])

    def list_links(self, app_versions: Mapping[str, frozenset[str]]) -> None:
        """Have CoAP discovery list the resources of these application versions (RFC 6690)."""
        for listener in self.datagrams:
            if isinstance(listener.core, CoapServer):
                listener.core.list_links(app_versions)
        for server in self.coap_streams:
            server.list_links(app_versions)

    def expire(self, now: float) -> bool:
        """Answer requests whose time is over; call several times a second, and again at once if it returns True."""
        more = False
        for table in self.pending.values():
            more |= table.expire(now)
        return more

    def check_datagrams(self) -> bool:
        """Retransmit what is due, and end silent peers; call several times a second, and again if it returns True."""
        more = False
        for listener in self.datagrams:
            more |= listener.socket.check()
        return more

    def check_connections(self) -> bool:
        """Close connections whose time is over; call about once a second, and again if it returns True."""
        more = False
        for listener in self.streams:
            more |= listener.socket.check()
        for server in self.coap_streams:
            more |= server.check()
        return more

    def connection_count(self) -> int:
        """Return the number of TCP connections."""
        return sum(listener.socket.connection_count() for listener in self.streams)

    def client_count(self) -> int:
        """Return the number of MQTT connections."""
        return sum(each.socket.connection_count() for each in self.streams if each.path[0] == "mqtt")

    def redirect(self, count: int, *, permanent: bool) -> int:
        """Send the clients of `count` MQTT connections to another server; return how many were there to be sent."""
        sent = 0
        for listener in self.streams:
            if listener.path[0] == "mqtt" and sent < count:
                sent += listener.socket.redirect(count - sent, permanent)
        return sent

    def stop_accepting(self) -> None:
        """Accept no more connections."""
        for listener in self.streams:
            listener.socket.stop_accepting()

    def begin_drain(self) -> None:
        """Accept no more connections and requests; those that are there go on."""
        self.stop_accepting()
        if self.http is not None:
            self.http.begin_drain()
        for each in self.datagrams:
            each.core.begin_drain()
        for server in self.coap_streams:
            server.begin_drain()

    def is_busy(self) -> bool:
        """Return whether requests wait for answers or are arriving over HTTP, or observers have not been told yet."""
        return (
            any(table.count() for table in self.pending.values())
            or (self.http is not None and self.http.is_busy())
            or any(isinstance(each.core, CoapServer) and each.core.has_observers() for each in self.datagrams)
            or any(server.has_observers() for server in self.coap_streams)
        )

    def end_drain(self) -> None:
        """Answer 503 to what is left of HTTP requests."""
        if self.http is not None:
            self.http.end_drain()

    async def stop(self) -> None:
        """Close all connections and sockets."""
        for listener in self.streams:
            await listener.socket.stop(CLOSE_TIMEOUT)
        for each in self.datagrams:
            if isinstance(each.core, DatagramPeers | MqttSnServer):
                each.core.stop()
            each.socket.stop()
