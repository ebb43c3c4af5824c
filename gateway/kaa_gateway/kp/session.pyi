"""A session and the endpoints that it speaks for. See session.pyx."""

from collections.abc import Mapping
from typing import Any

class Endpoint:
    endpoint_id: bytes
    sessions: Mapping[Session, Attachment]
    revocations: int
    present_count: int
    watched: bool
    watched_as: bytes | None
    def __init__(self, endpoint_id: bytes) -> None: ...
    def revoke_routes(self) -> None: ...

class Attachment:
    endpoint: Endpoint
    token: bytes
    app_version: bytes
    identity: Any
    ended: bool

class Session:
    principal: str
    client: str | None
    tenant: str | None
    key: int
    attached: Mapping[tuple[bytes, bytes], Attachment] | None
    def disconnect(self, reason: str) -> None: ...
    def describe(self) -> dict[str, Any]: ...
    def protocol_name(self) -> str: ...
    def is_of(self, client_id: str) -> bool: ...
