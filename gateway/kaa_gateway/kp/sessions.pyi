"""The sessions of one worker by key. See sessions.pyx."""

from kaa_gateway.counters import Counters
from kaa_gateway.kp.endpoints import Endpoints
from kaa_gateway.kp.presence import Presence, PresenceListener
from kaa_gateway.kp.quotas import Quotas
from kaa_gateway.kp.session import Attachment, Endpoint, Session
from kaa_gateway.slices import Slices

class Sessions:
    count: int
    endpoints: Endpoints
    presence: Presence
    quotas: Quotas
    def __init__(
        self,
        counters: Counters,
        slices: Slices,
        presence_listener: PresenceListener,
        endpoints_per_session_max: int,
        *,
        idle_timeout: float,
        watched_max: int,
    ) -> None: ...
    def set_limit(self, endpoints_per_session_max: int) -> None: ...
    def slot_count(self) -> int: ...
    def at(self, slot: int) -> Session | None: ...
    def get(self, key: int) -> Session | None: ...
    def attachments_to(self, endpoint: Endpoint, session: Session) -> list[Attachment]: ...
    def end_attachment(self, session: Session, attachment: Attachment) -> bool: ...
    def move_attachment(self, session: Session, attachment: Attachment, app_version: bytes) -> bool: ...
