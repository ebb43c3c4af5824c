"""The rows of the bench: the work of each."""

from dataclasses import dataclass, replace

from kaa_bench.connecting import LoadSpec


@dataclass(frozen=True)
class Row:
    """A kind of work; `name` selects it on the command line.

    A message of a `durable` row is acknowledged when a JetStream stream has stored it. Such a row is compared only with
    servers that store messages as well.
    """

    name: str
    title: str
    load: LoadSpec
    durable: bool = False
    plugin: bool = False
    """Whether the gateway's side of it is a plug-in in Python."""

    @property
    def of_mqtt_3_1_1(self) -> "Row":
        """Return the row with MQTT 3.1.1, for servers that know no other version."""
        return replace(self, load=replace(self.load, mqtt_version="3.1.1", aliased=False))


ROWS = {
    row.name: row
    for row in (
        Row("qos0", "MQTT QoS 0, pipelined", LoadSpec("mqtt", connections=8, qos=0, window=256)),
        Row("qos1", "MQTT QoS 1, window 64", LoadSpec("mqtt", connections=8, qos=1, window=64)),
        Row(
            "qos0-v5",
            "MQTT 5 QoS 0, pipelined",
            LoadSpec("mqtt", connections=8, qos=0, window=256, mqtt_version="5"),
        ),
        Row(
            "qos0-v5-alias",
            "MQTT 5 QoS 0, topic alias",
            LoadSpec("mqtt", connections=8, qos=0, window=256, mqtt_version="5", aliased=True),
        ),
        Row(
            "qos1-v5",
            "MQTT 5 QoS 1, window 64",
            LoadSpec("mqtt", connections=8, qos=1, window=64, mqtt_version="5"),
        ),
        Row(
            "qos1-v5-alias",
            "MQTT 5 QoS 1, topic alias",
            LoadSpec("mqtt", connections=8, qos=1, window=64, mqtt_version="5", aliased=True),
        ),
        Row(
            "qos1-many",
            "MQTT QoS 1, window 1, 1000 connections",
            LoadSpec("mqtt", connections=1000, qos=1, window=1),
        ),
        Row(
            "qos0-tls",
            "MQTT over TLS, QoS 0, pipelined",
            LoadSpec("mqtt", connections=8, qos=0, window=256, carrier="tls"),
        ),
        Row(
            "qos1-many-tls",
            "MQTT over TLS, QoS 1, window 1, 1000 connections",
            LoadSpec("mqtt", connections=1000, qos=1, window=1, carrier="tls"),
        ),
        Row(
            "qos1-websocket",
            "MQTT over WebSocket, QoS 1, window 64",
            LoadSpec("mqtt", connections=8, qos=1, window=64, carrier="websocket"),
        ),
        Row(
            "qos1-durable",
            "MQTT QoS 1, window 64, stored",
            LoadSpec("mqtt", connections=8, qos=1, window=64),
            durable=True,
        ),
        Row("http", "HTTP POST, 64 keep-alive connections", LoadSpec("http", connections=64)),
        Row("coap", "CoAP CON POST, 64 devices, window 1", LoadSpec("coap", connections=64)),
        Row(
            "coap-tcp", "CoAP over TCP, POST, 64 connections, window 1", LoadSpec("coap-tcp", connections=64)
        ),
        Row(
            "plugin",
            "MQTT QoS 1, window 64, by a plug-in in Python",
            LoadSpec("mqtt", connections=8, qos=1, window=64),
            plugin=True,
        ),
        Row(
            "mqtt-sn",
            "MQTT-SN QoS 1, 64 devices, window 8",
            LoadSpec("mqtt-sn", connections=64, qos=1, window=8),
        ),
        Row("kpudp", "KP/UDP confirmed, 64 devices, window 32", LoadSpec("kpudp", connections=64, window=32)),
        Row(
            "kpudp-secure",
            "KP/UDP confirmed, encrypted, 64 devices, window 32",
            LoadSpec("kpudp", connections=64, window=32, carrier="sealed"),
        ),
    )
}
