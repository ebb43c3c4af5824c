"""What the connections of one plug-in share. See server.pyx."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from kaa_gateway.counters import Counters
from kaa_gateway.identity.clients import Client
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.net.input_memory import InputMemory
from kaa_gateway.net.transport import ProtocolServer
from kaa_gateway.plugins.protocol import DeviceProtocol
from kaa_gateway.wire.certificate import ClientCertificate

REASON: re.Pattern[str]
REASONS_MAX: int

class PluginServer(ProtocolServer):
    name: str
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        protocol_class: type[DeviceProtocol],
        uplink: Uplink,
        sessions: Sessions,
        pending: PendingRequests,
        counters: Counters,
    ) -> None: ...
    def configure(
        self,
        options: Mapping[str, Any],
        *,
        app_version: str,
        max_message_size: int,
        login_timeout: float,
        idle_timeout: float,
    ) -> None: ...
    def limit(self, input_memory: InputMemory) -> None: ...
    def use_certificates(self, client_of: Callable[[ClientCertificate], Client]) -> None: ...
    def begin_drain(self) -> None: ...
