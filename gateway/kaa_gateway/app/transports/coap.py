"""CoAP over UDP and DTLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.coap.clients import dtls_clients
from kaa_gateway.coap.server import CoapServer

if TYPE_CHECKING:
    from kaa_gateway.app.listener_builder import ListenerBuilder


def build_coap(builder: ListenerBuilder) -> None:
    """Add the listeners that are enabled. Raises ConfigError."""
    coap = builder.config.transports.coap
    if coap.enabled:
        core = _make_server(builder, "coap", require_echo=coap.require_echo)
        groups: tuple[str, ...] = ()
        if builder.worker == 0:  # one worker answers for all
            groups = coap.multicast_interfaces
            core.answer_multicast(coap.multicast_leisure)
        builder.add_udp("coap", ("coap",), coap.port, core, multicast_interfaces=groups)
    if coap.dtls.enabled:
        # A cookie has proved the address of each of its peers.
        core = _make_server(builder, "coaps", require_echo=False)
        clients = dtls_clients(builder.authenticator, "coap")
        builder.add_dtls("coaps", ("coap", "dtls"), coap.dtls, core, clients)


def _make_server(builder: ListenerBuilder, name: str, *, require_echo: bool) -> CoapServer:
    coap = builder.config.transports.coap
    core = CoapServer(
        builder.uplink,
        builder.sessions,
        builder.counters,
        {version.name: version.allowed for version in builder.config.app_versions.values()},
        piggyback_delay=coap.piggyback_delay,
        response_timeout=coap.response_timeout,
        ack_timeout=coap.ack_timeout,
        pending_requests=builder.config.limits.pending_requests,
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
        now=builder.loop.time(),
    )
    builder.listeners.pending[name] = core.pending
    sizes = core.table_sizes
    builder.listeners.queues += [
        Queue(f"{name}_peers", lambda: sizes()["peers"], lambda: coap.peers),
        Queue(f"{name}_exchanges", lambda: sizes()["answered"], lambda: coap.exchanges),
        Queue(f"{name}_observers", lambda: sizes()["observers"], lambda: coap.observers),
        Queue(f"{name}_waits", lambda: sizes()["waits"], lambda: coap.observers),
        Queue(f"{name}_request_block_bytes", lambda: sizes()["requests_bytes"], lambda: coap.block_memory),
        Queue(f"{name}_response_block_bytes", lambda: sizes()["responses_bytes"], lambda: coap.block_memory),
    ]
    return core
