"""MQTT over TCP, TLS and WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.mqtt.server import MqttServer
from kaa_gateway.net.websocket import WebSocketServer

if TYPE_CHECKING:
    from typing import Any

    from kaa_gateway.app.listener_builder import ListenerBuilder
    from kaa_gateway.mqtt.limits import MqttLimits
    from kaa_gateway.mqtt.session_store import MqttSessionStore


def build_mqtt(builder: ListenerBuilder, sessions: MqttSessionStore, limits: MqttLimits) -> None:
    """Add the listeners that are enabled. Raises ConfigError."""
    mqtt = builder.config.transports.mqtt
    websocket = mqtt.websocket
    if not (mqtt.tcp.enabled or mqtt.tls.enabled or websocket.enabled or websocket.tls.enabled):
        return
    server = make_mqtt_server(
        builder,
        sessions,
        limits,
        connect_timeout=mqtt.connect_timeout,
        keep_alive_max=mqtt.max_keep_alive,
        receive_maximum=mqtt.receive_maximum,
        topic_alias_maximum=mqtt.topic_alias_maximum,
        server_reference=mqtt.server_reference,
    )
    if mqtt.tcp.enabled:
        builder.add_stream("mqtt", ("mqtt", "tcp"), mqtt.tcp.port, server)
    if mqtt.tls.enabled:
        builder.add_tls("mqtts", ("mqtt", "tls"), mqtt.tls, server)
    websocket_server = WebSocketServer(
        builder.loop,
        server,
        builder.counters,
        paths=websocket.paths,
        frame_size_max=websocket.max_frame_size,
        handshake_timeout=websocket.handshake_timeout,
    )
    if websocket.enabled:
        builder.add_stream("ws", ("mqtt", "websocket"), websocket.port, websocket_server)
    if websocket.tls.enabled:
        builder.add_tls("wss", ("mqtt", "websocket", "tls"), websocket.tls, websocket_server)


def make_mqtt_server(
    builder: ListenerBuilder, sessions: MqttSessionStore, limits: MqttLimits, **settings: Any
) -> MqttServer:
    """Return a server of MQTT connections, which are those of devices, or those within an MQTT-SN server."""
    mqtt = builder.config.transports.mqtt
    server = MqttServer(
        builder.loop,
        builder.uplink,
        builder.sessions,
        sessions,
        builder.counters,
        builder.authenticator,
        limits,
        packet_size_max=mqtt.max_packet_size,
        client_authentication=mqtt.client_authentication,
        refuse_control_characters=mqtt.refuse_control_characters,
        **settings,
    )
    server.limit(builder.input_memory)
    server.set_known_clients(builder.known_clients)
    return server
