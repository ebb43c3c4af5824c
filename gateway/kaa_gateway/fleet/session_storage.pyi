"""Sessions that outlive their worker, in a JetStream stream. See session_storage.pyx."""

from collections.abc import Callable

from kaa_gateway.bus.link import Link
from kaa_gateway.bus.listener import Receiver
from kaa_gateway.counters import Counters

class SessionStorage(Receiver):
    written: int
    loads: dict[str, int]
    last_sequence: int
    on_missing: Callable[[], None] | None
    def __init__(
        self,
        link: Link,
        counters: Counters,
        restore: Callable[[bytes, list[bytes], int], bytes | None],
        *,
        instance: str,
        replica_id: str,
        domain: str | None = None,
    ) -> None: ...
    def waiting(self) -> int: ...
    def write_all_again(self) -> int: ...
    def check(self) -> None: ...
    async def finish(self, deadline: float) -> None: ...
