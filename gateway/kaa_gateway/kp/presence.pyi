"""The presence of endpoints. See presence.pyx."""

from typing import Protocol

from kaa_gateway.counters import Counters
from kaa_gateway.kp.endpoints import Endpoints
from kaa_gateway.kp.session import Endpoint

class PresenceListener(Protocol):
    def appeared(self, endpoint_id: str, app_version_name: str) -> None: ...
    def disappeared(self, endpoint_id: str, app_version_name: str) -> None: ...

class Presence:
    def __init__(
        self,
        counters: Counters,
        endpoints: Endpoints,
        listener: PresenceListener,
        idle_timeout: float,
        watched_max: int,
    ) -> None: ...
    def forget(self, endpoint: Endpoint) -> None: ...
    def look_for_idle(self, now: float) -> bool: ...
    def end(self) -> None: ...
