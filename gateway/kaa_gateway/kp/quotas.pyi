"""The quotas of a worker. See quotas.pyx."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from kaa_gateway.kp.endpoint_months import EndpointMonths
from kaa_gateway.kp.population import Population
from kaa_gateway.kp.quota import Quota

class Limits(Protocol):
    @property
    def messages_per_second(self) -> float: ...
    @property
    def bytes_per_second(self) -> float: ...
    @property
    def messages_per_month(self) -> int: ...
    @property
    def connections(self) -> int: ...

class WiderLimits(Limits, Protocol):
    @property
    def endpoints(self) -> int: ...

class Usage(NamedTuple):
    scope: str
    name: str
    quota: Quota | None
    population: Population

class Quotas:
    def configure(
        self,
        tenants: Mapping[str, WiderLimits],
        app_versions: Mapping[str, WiderLimits],
        endpoints: Mapping[str, Limits],
        owners: Mapping[str, str],
    ) -> frozenset[bytes]: ...
    def limited(self) -> list[Usage]: ...
    def months_of_endpoints(self) -> dict[str, EndpointMonths]: ...
