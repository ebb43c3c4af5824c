"""Who has a session: agreed between the workers of a service instance. See directory.pyx."""

from collections.abc import Callable

from kaa_gateway.bus.link import Link
from kaa_gateway.bus.listener import Receiver
from kaa_gateway.counters import Counters
from kaa_gateway.fleet.claims import Claims
from kaa_gateway.fleet.messages import Offer
from kaa_gateway.fleet.other_workers import OtherWorkers
from kaa_gateway.fleet.session_storage import SessionStorage
from kaa_gateway.fleet.transfers import Transfers
from kaa_gateway.slices import Slices

class SessionDirectory(Receiver):
    others: OtherWorkers
    transfers: Transfers
    on_offer: Callable[[Offer], None] | None
    claims: Claims
    def __init__(
        self,
        link: Link,
        slices: Slices,
        counters: Counters,
        *,
        instance: str,
        replica_id: str,
        timeout: float,
    ) -> None: ...
    def set_storage(self, storage: SessionStorage | None) -> None: ...
    def entry_count(self) -> int: ...
    def check(self) -> None: ...

def session_name(kind: str, *parts: str) -> str: ...
