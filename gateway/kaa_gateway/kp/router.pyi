"""Routes from resource paths to extension instances. See router.pyx."""

from collections.abc import Collection, Generator, Mapping

from kaa_gateway.bus.durable import DurableLanes
from kaa_gateway.kp.quotas import Limits, WiderLimits
from kaa_gateway.kp.sessions import Sessions

class Router:
    def __init__(
        self,
        sessions: Sessions,
        app_versions: Mapping[str, frozenset[str]],
        endpoint_aware: Mapping[str, bool],
        tenants: Mapping[str, str],
        named: Collection[str],
        replica_id: str,
        capacity: int,
        topic_size_max: int,
    ) -> None: ...
    def configure(
        self,
        app_versions: Mapping[str, frozenset[str]],
        endpoint_aware: Mapping[str, bool],
        tenants: Mapping[str, str],
        named: Collection[str],
    ) -> frozenset[bytes]: ...
    def sweep(self) -> Generator[int]: ...
    def set_limits(self, capacity: int, topic_size_max: int) -> None: ...
    def extensions(self) -> list[str]: ...
    def set_quotas(
        self,
        tenants: Mapping[str, WiderLimits],
        app_versions: Mapping[str, WiderLimits],
        endpoints: Mapping[str, Limits],
        owners: Mapping[str, str],
    ) -> None: ...
    def set_durable(self, durable: DurableLanes) -> None: ...
    def route_count(self) -> int: ...
    def successor(self, previous: bytes, app_version: bytes) -> bytes | None: ...
    def remove_tenant(self, tenant: str) -> frozenset[bytes]: ...
