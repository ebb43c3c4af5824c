"""KP/UDP, plain and encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.app import encryption
from kaa_gateway.app.listeners import section_of
from kaa_gateway.errors import ConfigError
from kaa_gateway.kpudp.secure_socket import SecureSocket
from kaa_gateway.kpudp.server import KpudpServer

if TYPE_CHECKING:
    from kaa_gateway.app.listener_builder import ListenerBuilder


def build_kpudp(builder: ListenerBuilder) -> None:
    """Add the listeners that are enabled. Raises ConfigError."""
    udp = builder.config.transports.udp
    if udp.enabled:
        builder.add_udp("udp", ("udp",), udp.port, _make_server(builder, "udp"))
    if udp.secure.enabled:
        keys = encryption.shared_keys(udp.secure)
        core = _make_server(builder, "udps")
        try:
            secure_socket = SecureSocket(
                builder.loop,
                core,
                builder.counters,
                keys,
                worker=builder.worker,
                session_timeout=udp.secure.session_timeout,
                sessions_max=udp.secure.sessions,
            )
        except OSError as error:
            key = f"{section_of(('udp', 'secure'))}.enabled"
            raise ConfigError("tls_unusable", f"{key}: {error}") from None
        builder.listeners.credentials.append(keys)
        builder.listeners.queues.append(
            Queue("udps_sessions", secure_socket.session_count, lambda: udp.secure.sessions)
        )
        builder.add_datagrams("udps", ("udp", "secure"), udp.secure.port, secure_socket, core)


def _make_server(builder: ListenerBuilder, name: str) -> KpudpServer:
    udp = builder.config.transports.udp
    core = KpudpServer(
        builder.loop,
        builder.uplink,
        builder.sessions,
        builder.pending_requests(name, udp.response_timeout),
        builder.counters,
        peers=udp.peers,
        peer_timeout=udp.peer_timeout,
        ack_timeout=udp.ack_timeout,
        unacknowledged=udp.unacknowledged,
    )
    builder.listeners.queues += [
        Queue(f"{name}_peers", lambda: sum(core.peers.counts()), lambda: udp.peers),
        Queue(f"{name}_unacknowledged", core.unacknowledged, lambda: udp.unacknowledged),
    ]
    return core
