"""What an extension sends. See outgoing.pyx."""

from collections.abc import Callable, Mapping

from kaa_gateway.bus.link import Link
from kaa_gateway.bus.listener import Listener

class Outgoing(Listener):
    bytes_max: int
    def __init__(
        self,
        bytes_max: int,
        on_full: Callable[[bool], None],
        on_lost_message: Callable[[], None],
        on_connection: Callable[[], None],
    ) -> None: ...
    def use(self, link: Link | None) -> None: ...
    def send(
        self, subject: str, payload: bytes, reply: str = ..., headers: Mapping[str, str] | None = ...
    ) -> None: ...
