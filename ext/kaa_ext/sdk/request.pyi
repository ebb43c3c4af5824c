"""A request. See request.pyx."""

from collections.abc import Mapping

class Request:
    def __init__(
        self,
        *,
        endpoint_id: str | None,
        app_version_name: str,
        resource_path: str,
        request_id: int | None,
        payload: bytes,
        correlation_id: str,
        timestamp: int,
        deadline: int | None,
        config_name: str | None,
        parameters: Mapping[str, str],
        route: str = ...,
        gateway_replica_id: str | None = ...,
        trace_parent: str | None = ...,
    ) -> None: ...
    @property
    def endpoint_id(self) -> str | None: ...
    @property
    def app_version_name(self) -> str: ...
    @property
    def resource_path(self) -> str: ...
    @property
    def request_id(self) -> int | None: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def correlation_id(self) -> str: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def deadline(self) -> int | None: ...
    @property
    def config_name(self) -> str | None: ...
    @property
    def parameters(self) -> Mapping[str, str]: ...
    @property
    def route(self) -> str: ...
    @property
    def gateway_replica_id(self) -> str | None: ...
    @property
    def trace_parent(self) -> str | None: ...
