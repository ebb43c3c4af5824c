"""The MQTT server. See mqtt.pyx."""

import asyncio

from gateway.identity.clients import Authenticator
from gateway.kp.counters import Counters
from gateway.kp.sessions import Sessions
from gateway.kp.uplink import Uplink
from gateway.transports.mqtt_session import MqttLimits, MqttSessions
from gateway.transports.stream import InputMemory, Outlet, Stream

class MqttTransport:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uplink: Uplink,
        sessions: Sessions,
        stored: MqttSessions,
        counters: Counters,
        authenticator: Authenticator,
        limits: MqttLimits,
        *,
        packet_size_max: int,
        connect_timeout: float,
        keep_alive_max: float = 0,
    ) -> None: ...
    def limit(self, input_memory: InputMemory) -> None: ...
    def connect(self, outlet: Outlet) -> Stream: ...
