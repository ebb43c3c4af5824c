"""The session of an endpoint whose device is on another broker. See session.pyx."""

from typing import Any

from kaa_gateway.bridge.events import BridgeEvents
from kaa_gateway.counters import Counters
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.session import Session
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink

EndpointKey = tuple[bytes, bytes]

class BridgedEndpoint(Session):
    endpoint_key: EndpointKey | None
    owned: bool
    def __init__(
        self,
        uplink: Uplink,
        sessions: Sessions,
        counters: Counters,
        protocol: str,
        bridge: BridgeEvents,
        endpoint_key: EndpointKey | None,
    ) -> None: ...
    def publish(self, topic: bytes, payload: bytes, timeout: int, reference: Any) -> bool: ...
    def close(self) -> None: ...

def endpoint_key_of(router: Router, topic: bytes) -> EndpointKey | None: ...
