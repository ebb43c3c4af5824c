"""MQTT-SN over UDP and DTLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.app.transports.mqtt import make_mqtt_server
from kaa_gateway.coap.clients import dtls_clients
from kaa_gateway.mqtt_sn.server import MqttSnServer
from kaa_gateway.mqtt_sn.settings import MqttSnSettings
from kaa_gateway.mqtt_sn.topics import TopicMemory

if TYPE_CHECKING:
    from typing import Any

    from kaa_gateway.app.listener_builder import ListenerBuilder
    from kaa_gateway.config.keys import MqttSn
    from kaa_gateway.mqtt.limits import MqttLimits
    from kaa_gateway.mqtt.session_store import MqttSessionStore


def build_mqtt_sn(builder: ListenerBuilder, sessions: MqttSessionStore, limits: MqttLimits) -> None:
    """Add the listeners that are enabled. Raises ConfigError."""
    keys = builder.config.transports.mqtt_sn
    if not (keys.enabled or keys.dtls.enabled):
        return
    server = make_mqtt_server(
        builder,
        sessions,
        limits,
        connect_timeout=keys.connect_timeout,
        keep_alive_max=keys.max_keep_alive,
        protocol="mqtt-sn",
    )
    settings = MqttSnSettings(**_settings_of(keys))
    topic_memory = TopicMemory(keys.topic_memory)

    def reconfigure(new: MqttSn) -> None:
        settings.set(**_settings_of(new))
        topic_memory.set_limit(new.topic_memory)

    builder.listeners.mqtt_sn = reconfigure
    queues = builder.listeners.queues
    queues.append(Queue("mqtt_sn_topic_bytes", topic_memory.bytes, topic_memory.get_limit))
    if keys.enabled:
        core = MqttSnServer(
            builder.loop, server, builder.uplink, builder.counters, settings, topic_memory, encrypted=False
        )
        socket = builder.add_udp("mqtt-sn", ("mqtt-sn",), keys.port, core)
        queues += [
            Queue("mqtt_sn_clients", core.count, lambda: settings.peers),
            Queue("mqtt_sn_sleeping_clients", core.sleeping, lambda: settings.peers),
        ]
        if keys.multicast_group is not None:
            core.advertise(keys.multicast_group, keys.port, keys.advertise_interval)
            builder.listeners.groups[keys.multicast_group] = socket
    if keys.dtls.enabled:
        core = MqttSnServer(
            builder.loop, server, builder.uplink, builder.counters, settings, topic_memory, encrypted=True
        )
        clients = dtls_clients(builder.authenticator, "mqtt-sn")
        builder.add_dtls("mqtt-sns", ("mqtt-sn", "dtls"), keys.dtls, core, clients)
        queues.append(Queue("mqtt_sns_clients", core.count, lambda: settings.peers))


def _settings_of(keys: MqttSn) -> dict[str, Any]:
    return {
        "gateway_id": keys.gateway_id,
        "retry_timeout": keys.retry_timeout,
        "retries": keys.retries,
        "connect_timeout": keys.connect_timeout,
        "peers": keys.peers,
        "topics": keys.registered_topics,
        "buffered_messages": keys.buffered_messages,
        "buffered_bytes": keys.buffered_bytes,
        "message_size": keys.max_message_size,
        "predefined": {
            int(number): topic for number, topic in (entry.split("=", 1) for entry in keys.predefined_topics)
        },
    }
