"""Publications that JetStream confirms. See durable.pyx."""

from collections.abc import Iterable
from typing import NamedTuple

from kaa_gateway.bus.link import Link
from kaa_gateway.bus.listener import Listener, Receiver

REPLY_TO_HEADER: str

class Failure(NamedTuple):
    sentence: str
    permanent: bool

def read_answer(answer: bytes, stream: str) -> Failure | None: ...

class DurableLane:
    instance: str
    stream: str
    full: bool
    stalled: bool
    trouble: str
    stored: int
    resent: int
    abandoned: int
    refusals: int
    def backlog(self) -> int: ...
    def waiting(self) -> int: ...
    def check(self) -> None: ...

class DurableLanes(Receiver):
    lanes: list[DurableLane]
    def __init__(
        self,
        link: Link,
        listener: Listener,
        streams: Iterable[tuple[str, str, str]],
        reply_to: str,
        pending_max: int,
        ack_timeout: float,
        tag: int,
    ) -> None: ...
    def check(self) -> None: ...
    def backlog(self) -> int: ...
