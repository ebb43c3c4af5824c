"""From NATS to a device. See downlink.pyx."""

from typing import Any

from gateway.bus.durable import DurableLanes
from gateway.bus.link import Listener
from gateway.kp.correlation import Correlator
from gateway.kp.counters import Counters
from gateway.kp.router import Router
from gateway.kp.sessions import Sessions
from gateway.kp.uplink import Uplink

class Downlink(Listener):
    def __init__(
        self,
        uplink: Uplink,
        router: Router,
        sessions: Sessions,
        correlator: Correlator,
        counters: Counters,
    ) -> None: ...
    def set_durable(self, durable: DurableLanes) -> None: ...
    def set_traces(self, traces: dict[bytes, Any]) -> None: ...
