"""The protocols of plug-ins over TCP, TLS, UDP and DTLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.app import plugins
from kaa_gateway.plugins.datagrams import DatagramPeers
from kaa_gateway.plugins.server import PluginServer

if TYPE_CHECKING:
    from kaa_gateway.app.listener_builder import ListenerBuilder
    from kaa_gateway.config.keys import PluginProtocol


def build_plugins(builder: ListenerBuilder) -> None:
    """Add the listeners that are enabled. Raises ConfigError."""
    for name, settings in builder.config.transports.protocols.items():
        server = PluginServer(
            builder.loop,
            name,
            plugins.class_of(name, settings),
            builder.uplink,
            builder.sessions,
            builder.pending_requests(name, settings.response_timeout),
            builder.counters,
        )
        server.limit(builder.input_memory)
        server.use_certificates(plugins.certificate_clients(builder.authenticator))
        plugins.apply_settings(server, settings)
        builder.listeners.plugins[name] = server
        path = ("protocols", name)
        if settings.transport == "udp":
            _build_datagrams(builder, name, server, settings)
            continue
        if settings.enabled:
            builder.add_stream(name, path, settings.port, server)
        if settings.tls.enabled:
            builder.add_tls(f"{name}s", (*path, "tls"), settings.tls, server)


def _build_datagrams(
    builder: ListenerBuilder, name: str, server: PluginServer, settings: PluginProtocol
) -> None:
    path = ("protocols", name)
    if settings.enabled:
        core = DatagramPeers(server, settings.peers)
        builder.listeners.queues.append(Queue(f"{name}_peers", core.count, lambda: settings.peers))
        builder.add_udp(name, path, settings.port, core)
    if settings.dtls.enabled:
        core = DatagramPeers(server, settings.peers)
        clients = plugins.dtls_clients(builder.authenticator)
        builder.add_dtls(f"{name}s", (*path, "dtls"), settings.dtls, core, clients)
