"""Limits of how much connections and sources may send. See admission.pyx."""

from kaa_gateway.counters import Counters

class Admission:
    def __init__(
        self,
        counters: Counters,
        *,
        half_open_max: int,
        message_rate: float,
        byte_rate: float,
        source_connections: int,
        source_message_rate: float,
        source_byte_rate: float,
        sources_max: int = ...,
    ) -> None: ...
    def set_limits(
        self,
        *,
        half_open_max: int,
        message_rate: float,
        byte_rate: float,
        source_connections: int,
        source_message_rate: float,
        source_byte_rate: float,
    ) -> None: ...
    def source_count(self) -> int: ...

def address_text(address: bytes) -> str: ...
