"""The endpoints of a worker by ID. See endpoints.pyx."""

from collections.abc import Callable
from typing import NamedTuple

from kaa_gateway.kp.session import Endpoint

class TrafficRow(NamedTuple):
    app_version: bytes
    endpoint_id: bytes
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int

class Endpoints:
    def __len__(self) -> int: ...
    def get(self, endpoint_id: bytes) -> Endpoint | None: ...
    def all(self) -> list[Endpoint]: ...
    def report_traffic(self, departed_max: int, on_departed_full: Callable[[], object]) -> None: ...
    def begin_traffic(self) -> tuple[list[Endpoint], list[TrafficRow]]: ...
    def take_traffic(self, endpoints: list[Endpoint]) -> list[TrafficRow]: ...
