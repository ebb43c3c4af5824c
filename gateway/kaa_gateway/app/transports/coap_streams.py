"""CoAP over TCP, TLS and WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.coap.clients import tls_clients
from kaa_gateway.coap.stream_server import CoapStreamServer
from kaa_gateway.net.websocket import WebSocketServer

if TYPE_CHECKING:
    from kaa_gateway.app.listener_builder import ListenerBuilder
    from kaa_gateway.config.keys import CoapTcp, CoapTls, CoapWebSocket, CoapWebSocketTls


COAP_PATHS = ("/.well-known/coap",)
"""Where CoAP over WebSocket is (RFC 8323 section 4.1)."""
COAP_SUBPROTOCOLS = (b"coap",)


def build_coap_streams(builder: ListenerBuilder) -> None:
    """Add the listeners that are enabled. Raises ConfigError."""
    coap = builder.config.transports.coap
    if coap.tcp.enabled:
        server = _make_server(builder, "coap+tcp", coap.tcp)
        builder.add_stream("coap+tcp", ("coap", "tcp"), coap.tcp.port, server)
    if coap.tls.enabled:
        server = _make_server(builder, "coaps+tcp", coap.tls)
        builder.add_tls("coaps+tcp", ("coap", "tls"), coap.tls, server)
    websocket = coap.websocket
    if websocket.enabled:
        server = _make_server(builder, "coap+ws", websocket)
        builder.add_stream(
            "coap+ws", ("coap", "websocket"), websocket.port, _websocket_server(builder, server)
        )
    if websocket.tls.enabled:
        server = _make_server(builder, "coaps+ws", websocket.tls)
        builder.add_tls(
            "coaps+ws", ("coap", "websocket", "tls"), websocket.tls, _websocket_server(builder, server)
        )


def _websocket_server(builder: ListenerBuilder, server: CoapStreamServer) -> WebSocketServer:
    coap = builder.config.transports.coap
    return WebSocketServer(
        builder.loop,
        server,
        builder.counters,
        paths=COAP_PATHS,
        subprotocols=COAP_SUBPROTOCOLS,
        keeps_messages=True,
        frame_size_max=2 * coap.max_body_size,  # the bound of a message is smaller, and the server's
        handshake_timeout=coap.csm_timeout,
    )


def _make_server(
    builder: ListenerBuilder, name: str, settings: CoapTcp | CoapTls | CoapWebSocket | CoapWebSocketTls
) -> CoapStreamServer:
    """Return the server of one listener for a reliable transport; `name` is its scheme."""
    coap = builder.config.transports.coap
    encrypted = name.startswith("coaps")
    server = CoapStreamServer(
        builder.loop,
        builder.uplink,
        builder.sessions,
        builder.counters,
        {version.name: version.allowed for version in builder.config.app_versions.values()},
        authenticate=tls_clients(builder.authenticator, name) if encrypted else None,
        alternative_address=settings.alternative_address,
        csm_timeout=coap.csm_timeout,
        ping_after=coap.ping_after,
        response_timeout=coap.response_timeout,
        pending_requests=builder.config.limits.pending_requests,
        max_body_size=coap.max_body_size,
        block_memory=coap.block_memory,
        transfers_per_peer=coap.transfers_per_peer,
        outstanding_per_peer=coap.outstanding_per_peer,
        observers=coap.observers,
        observers_per_peer=coap.observers_per_peer,
        max_wait=coap.max_wait,
        requests_per_second=coap.requests_per_second,
    )
    server.limit(builder.input_memory)
    label = name.replace("+", "_")
    builder.listeners.coap_streams.append(server)
    builder.listeners.pending[label] = server.pending
    sizes = server.table_sizes
    builder.listeners.queues += [
        Queue(f"{label}_observers", lambda: sizes()["observers"], lambda: coap.observers),
        Queue(f"{label}_waits", lambda: sizes()["waits"], lambda: coap.observers),
        Queue(f"{label}_request_block_bytes", lambda: sizes()["requests_bytes"], lambda: coap.block_memory),
        Queue(f"{label}_response_block_bytes", lambda: sizes()["responses_bytes"], lambda: coap.block_memory),
    ]
    return server
