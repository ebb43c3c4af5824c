"""The MQTT-SN server. See server.pyx."""

import asyncio

from kaa_gateway.counters import Counters
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.mqtt.server import MqttServer
from kaa_gateway.mqtt_sn.settings import MqttSnSettings
from kaa_gateway.mqtt_sn.topics import TopicMemory
from kaa_gateway.net.udp import DatagramCore

class MqttSnServer(DatagramCore):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        mqtt: MqttServer,
        uplink: Uplink,
        counters: Counters,
        settings: MqttSnSettings,
        topic_memory: TopicMemory,
        *,
        encrypted: bool,
    ) -> None: ...
    def advertise(self, address: str, port: int, interval: float) -> None: ...
    def count(self) -> int: ...
    def sleeping(self) -> int: ...
    def begin_drain(self) -> None: ...
    def stop(self) -> None: ...
