"""From a device's message to ClientData on NATS. See uplink.pyx."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from kaa_gateway.bus.link import Link
from kaa_gateway.counters import Counters
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.identification import Identification
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.sessions import Sessions

class Trace(Protocol):
    """What becomes of one message; nothing of it may fail. Its `field` is a line of a NATS header."""

    field: bytes
    def confirmed(self) -> None: ...
    def repeated(self) -> None: ...
    def answered(self, status_code: int) -> None: ...
    def failed(self, reason: str) -> None: ...

class Tracer(Protocol):
    """Says which messages are traced: every `gap()`-th. `begin` is given one, and the seconds that it has waited."""

    def gap(self) -> int: ...
    def begin(
        self,
        correlation_id: bytes,
        protocol: str,
        app_version: str,
        extension: str,
        payload_size: int,
        awaits_answer: bool,
        waited: float,
    ) -> Trace | None: ...

class Uplink:
    identification: Identification
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
    def set_tracer(self, tracer: Tracer) -> None: ...
