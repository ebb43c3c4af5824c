"""HTTP and HTTPS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.http.parser import RequestLimits
from kaa_gateway.http.server import HttpServer

if TYPE_CHECKING:
    from kaa_gateway.app.listener_builder import ListenerBuilder


def build_http(builder: ListenerBuilder) -> None:
    """Add the listeners that are enabled. Raises ConfigError."""
    http = builder.config.transports.http
    if not (http.enabled or http.tls.enabled):
        return
    server = HttpServer(
        builder.loop,
        builder.uplink,
        builder.sessions,
        builder.pending_requests("http", http.response_timeout),
        builder.counters,
        builder.authenticator,
        RequestLimits(http.max_body_size, http.max_header_size, http.max_url_length),
        client_authentication=http.client_authentication,
        path_prefix=http.path_prefix,
        allowed_origins=http.allowed_origins,
        read_timeout=http.read_timeout,
        keep_alive_timeout=http.keep_alive_timeout,
        pipelined_requests=http.pipelined_requests,
        max_wait=http.max_wait,
    )
    server.limit(builder.input_memory)
    builder.listeners.http = server
    if http.enabled:
        builder.add_stream("http", ("http",), http.port, server)
    if http.tls.enabled:
        builder.add_tls("https", ("http", "tls"), http.tls, server)
