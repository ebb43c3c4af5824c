"""The receivers of subscriptions. See receivers.pyx."""

from collections.abc import Callable, Mapping
from typing import Any

from kaa_gateway.bus.listener import Receiver
from nats.aio.msg import Msg

from kaa_ext.sdk.dispatcher import Dispatcher

class MessageReceiver(Receiver):
    def __init__(self, callback: Callable[[Msg], Any]) -> None: ...
    def deliver(
        self, subject: str, reply: str, payload: bytes, headers: Mapping[str, str] | None = ...
    ) -> None: ...

class RequestReceiver(Receiver):
    def __init__(self, dispatcher: Dispatcher) -> None: ...
    def deliver(
        self, subject: str, reply: str, payload: bytes, headers: Mapping[str, str] | None = ...
    ) -> None: ...

class StoredReceiver(Receiver):
    expected: int
    def __init__(
        self,
        dispatcher: Dispatcher,
        make: Callable[[str], Any],
        on_status: Callable[[str, str, int], None],
        on_low: Callable[[], None],
        low: int,
    ) -> None: ...
    def expect_less(self, count: int) -> None: ...
    def deliver(
        self, subject: str, reply: str, payload: bytes, headers: Mapping[str, str] | None = ...
    ) -> None: ...
