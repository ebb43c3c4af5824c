"""The native NATS link. See link.pyx."""

import asyncio
from collections.abc import Callable
from typing import Any

from kaa_gateway.bus.connection import Connection
from kaa_gateway.bus.listener import Listener, Receiver
from kaa_gateway.counters import Histogram

class Link:
    loop: asyncio.AbstractEventLoop
    ready: bool
    headers: bool
    full: bool
    payload_max: int
    backlog: int
    blocks_sent: int
    blocks_confirmed: int
    bytes_sent: int
    publications_resent: int
    publications_abandoned: int
    messages_received: int
    unattributed_no_responders: int
    connects: int
    confirmation: Histogram
    pending_max: int
    @property
    def info(self) -> dict[str, Any] | None: ...
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        subscriptions: tuple[str, ...],
        pending_max: int,
        ping_timeout: float,
        on_lost: Callable[[str], Any],
    ) -> None: ...
    def unconfirmed_count(self) -> int: ...
    def set_listener(self, listener: Listener) -> None: ...
    def subscribe(self, subject: str, receiver: Receiver, queue_group: str | None = ...) -> int: ...
    def unsubscribe(self, sid: int) -> None: ...
    def begin(self) -> Connection: ...
    def adopt(self, transport: asyncio.BaseTransport) -> None: ...
    def subscription_lines(self) -> bytes: ...
    def abort(self, sentence: str = ...) -> None: ...
    def resume(self, payload_max: int = ..., headers: bool = ...) -> None: ...
    def check(self) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...
