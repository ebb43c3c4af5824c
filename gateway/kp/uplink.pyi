"""From a device's message to ClientData on NATS. See uplink.pyx."""

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.bus.link import Link
from gateway.kp.correlation import Correlator
from gateway.kp.counters import Counters
from gateway.kp.router import Router
from gateway.kp.sessions import Sessions

class Uplink:
    waiting_messages: int
    def __init__(
        self,
        link: Link,
        router: Router,
        sessions: Sessions,
        correlator: Correlator,
        counters: Counters,
        resolve: Callable[[str, str], asyncio.Future[Any]],
        waiting_count_max: int,
        waiting_bytes_max: int,
    ) -> None: ...
    def set_limits(self, waiting_count_max: int, waiting_bytes_max: int) -> None: ...
    def retry_identifications(self) -> None: ...
