"""The quotas of a worker. See quotas.pyx."""

from collections.abc import Mapping
from typing import Protocol

from kaa_gateway.kp.quota import Quota

class Limits(Protocol):
    @property
    def messages_per_second(self) -> float: ...
    @property
    def bytes_per_second(self) -> float: ...

class Quotas:
    def configure(
        self,
        tenants: Mapping[str, Limits],
        app_versions: Mapping[str, Limits],
        endpoints: Mapping[str, Limits],
        owners: Mapping[str, str],
    ) -> frozenset[bytes]: ...
    def all(self) -> list[tuple[str, str, Quota]]: ...
