"""Who has a session: agreed between the workers of a service instance. See directory.pyx."""

from collections.abc import Callable, Iterable

from kaa_gateway.bus.link import Link
from kaa_gateway.bus.listener import Receiver
from kaa_gateway.counters import Counters, Histogram
from kaa_gateway.fleet.messages import Offer
from kaa_gateway.slices import Slices

class SessionDirectory(Receiver):
    alone: bool
    on_offer: Callable[[Offer], None] | None
    claim_results: dict[str, int]
    sessions_moved: dict[str, int]
    messages_forwarded: dict[str, int]
    claim_time: Histogram
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
    def pending_count(self) -> int: ...
    def entry_count(self) -> int: ...
    async def give_away(self, offers: Iterable[Offer], deadline: float) -> None: ...
    def check(self) -> None: ...
    def flush(self) -> None: ...

def session_name(kind: str, *parts: str) -> str: ...
