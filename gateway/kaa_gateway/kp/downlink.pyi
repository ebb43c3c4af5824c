"""From NATS to a device. See downlink.pyx."""

from typing import Any

from kaa_gateway.bus.clock_skew import ClockSkew
from kaa_gateway.bus.durable import DurableLanes
from kaa_gateway.bus.listener import Listener
from kaa_gateway.counters import Counters
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.departures import Departures
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink

class Downlink(Listener):
    clock_skew: ClockSkew
    departures: Departures
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
