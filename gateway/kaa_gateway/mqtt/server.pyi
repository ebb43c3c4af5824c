"""The MQTT server. See server.pyx."""

import asyncio

from kaa_gateway.counters import Counters
from kaa_gateway.identity.clients import Authenticator
from kaa_gateway.identity.known_clients import KnownClients
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.mqtt.limits import MqttLimits
from kaa_gateway.mqtt.session_store import MqttSessionStore
from kaa_gateway.net.input_memory import InputMemory
from kaa_gateway.net.transport import ProtocolServer

class MqttServer(ProtocolServer):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uplink: Uplink,
        sessions: Sessions,
        store: MqttSessionStore,
        counters: Counters,
        authenticator: Authenticator,
        limits: MqttLimits,
        *,
        packet_size_max: int,
        connect_timeout: float,
        client_authentication: str = "required",
        keep_alive_max: float = 0,
        receive_maximum: int = 65535,
        topic_alias_maximum: int = 0,
        server_reference: str | None = None,
        refuse_control_characters: bool | None = None,
        protocol: str = "mqtt",
    ) -> None: ...
    def limit(self, input_memory: InputMemory) -> None: ...
    def set_known_clients(self, known_clients: KnownClients | None) -> None: ...
