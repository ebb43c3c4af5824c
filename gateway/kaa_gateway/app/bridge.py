"""The bridge of a worker, from the configuration."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.bridge.topics import TopicMapping
from kaa_gateway.config.keys import Coap, Http, Mqtt, MqttTcp, Transports, Udp
from kaa_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from functools import partial

    from prometheus_client.metrics_core import Metric

    from kaa_gateway.bridge.bridge import Bridge
    from kaa_gateway.bridge.broker import BrokerClient
    from kaa_gateway.bus.control import Control
    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import Bridge as BridgeSettings
    from kaa_gateway.config.keys import BridgeMapping
    from kaa_gateway.counters import Counters
    from kaa_gateway.kp.router import Router
    from kaa_gateway.kp.sessions import Sessions
    from kaa_gateway.kp.uplink import Uplink

SECTION = "kaa.kpc.bridge"
PORTS = {"mqtt": 1883, "mqtts": 8883}


def make_bridge(
    config: Config,
    replica_id: str,
    *,
    uplink: Uplink,
    sessions: Sessions,
    router: Router,
    counters: Counters,
    control: Control,
) -> Bridge | None:
    """Return the bridge of a worker; None if it has none. Raises ConfigError."""
    settings = config.bridge
    if not settings.enabled:
        return None
    # aiomqtt is an extra.
    from kaa_gateway.bridge.bridge import Bridge
    from kaa_gateway.bridge.owners import Owners

    up, down = mappings_of("up", settings.up), mappings_of("down", settings.down)
    filters = dict.fromkeys((*settings.topics, *(mapping.topic_filter for mapping in up)))
    name = config.service.instance.name
    bridge = Bridge(
        uplink,
        sessions,
        router,
        counters,
        connector(settings, f"{name}-{replica_id}-bridge", counters),
        topic_filters=[f"$share/{settings.share}/{topic_filter}" for topic_filter in filters],
        up=up,
        down=down,
        endpoints_max=settings.endpoints,
        queued_max=settings.queued_messages,
        queued_bytes_max=settings.queued_bytes,
    )
    now = asyncio.get_running_loop().time
    bridge.set_owners(Owners(control, name, replica_id, bridge.find, now, counters))
    return bridge


def connector(settings: BridgeSettings, identifier: str, counters: Counters) -> partial[BrokerClient]:
    """Return the function that makes a client of the broker. Raises ConfigError."""
    from functools import partial

    from kaa_gateway.bridge.broker import BrokerClient

    parts = urlsplit(settings.url)
    return partial(
        BrokerClient,
        parts.hostname or "",
        parts.port or PORTS[parts.scheme],
        identifier=identifier,
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        tls=_tls_context(settings) if parts.scheme == "mqtts" else None,
        keep_alive=int(settings.keep_alive),
        receive_maximum=settings.receive_maximum,
        packet_size_max=settings.max_packet_size,
        session_expiry=int(settings.session_expiry),
        dropped=lambda: counters.add("dropped", "bridge_qos_0"),
        violated=lambda: counters.add("closed", "bridge_violation"),
    )


def _tls_context(settings: BridgeSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ValueError) as error:
        raise ConfigError("config_invalid", f"{SECTION}: the certificates cannot be used: {error}") from None
    return context


def mappings_of(name: str, mappings: Mapping[str, BridgeMapping]) -> list[TopicMapping]:
    """Return the mappings of one direction. Raises ConfigError."""
    return [
        TopicMapping.of(f"{SECTION}.{name}.{key}", mapping.source, mapping.target)
        for key, mapping in mappings.items()
    ]


def problems(settings: BridgeSettings) -> list[str]:
    """Return what is wrong with the settings of the bridge: at most one line."""
    if not settings.enabled:
        return []
    try:
        mappings_of("up", settings.up)
        mappings_of("down", settings.down)
        if settings.url.startswith("mqtts"):
            _tls_context(settings)
    except ConfigError as error:
        return [error.detail]
    return []


def bridge_only(config: Config) -> Config:
    """Return a configuration with the bridge and no listener for devices."""
    transports = Transports(
        bind_address=config.transports.bind_address,
        mqtt=Mqtt(tcp=MqttTcp(enabled=False)),
        http=Http(enabled=False),
        coap=Coap(enabled=False),
        udp=Udp(enabled=False),
    )
    return replace(config, transports=transports, bridge=replace(config.bridge, enabled=True))


def queues_of_bridge(bridge: Bridge, settings: BridgeSettings) -> list[Queue]:
    """Return what the broker and the devices of a bridge can fill."""
    return [
        Queue("bridge_endpoints", bridge.endpoint_count, lambda: settings.endpoints),
        Queue("bridge_unacknowledged", bridge.unacknowledged, lambda: settings.receive_maximum),
        Queue("bridge_outgoing", bridge.queued, lambda: settings.queued_messages),
        Queue("bridge_outgoing_bytes", bridge.queued_bytes, lambda: settings.queued_bytes),
    ]


class BridgeCollector(Collector):
    """The metrics of a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def collect(self) -> Iterable[Metric]:
        """Read the counts now."""
        bridge = self._bridge
        yield GaugeMetricFamily(
            "kaa_gateway_bridge_connected", "Whether the broker is connected.", value=bridge.is_connected
        )
        yield CounterMetricFamily(
            "kaa_gateway_bridge_connections", "Connections made to the broker.", value=bridge.connections
        )
