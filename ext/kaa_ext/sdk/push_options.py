"""What a push may have beside its endpoint, resource path and payload."""

from typing import TypedDict


class PushOptions(TypedDict, total=False):
    """The keywords of `Extension.push`. After `timeout_s` a push is not delivered any more; 0 is never."""

    app_version_name: str | None
    gateway_instance: str | None
    gateway_replica_id: str | None
    status_code: int
    push_id: str | None
    timeout_s: float
