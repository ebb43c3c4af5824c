"""The messages of other services that an extension subscribes to, and the functions that take them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from nats.aio.msg import Msg

from kaa_ext.sdk.connection import Interest
from kaa_ext.sdk.dispatch import Dispatcher
from kaa_ext.sdk.logs import LimitedLog

Subscriber: TypeAlias = Callable[[Msg], Awaitable[None] | None]


class Subscriptions:
    """All that an extension subscribes to when it connects.

    At most `concurrency` async calls of each subscriber run at a time; a drain waits for them.
    """

    def __init__(
        self, dispatcher: Dispatcher, stats: dict[str, int], limited: LimitedLog, concurrency: int
    ) -> None:
        self.interests: list[Interest] = []
        self._dispatcher = dispatcher
        self._stats = stats
        self._limited = limited
        self._concurrency = concurrency

    def add(self, subject: str, queue: str, function: Subscriber, *, answers: bool) -> None:
        """Have a function called for each message on a subject. Its errors are logged and counted."""
        self.interests.append(Interest(subject, queue, self._receiver(subject, function), answers))

    def _receiver(self, subject: str, function: Subscriber) -> Callable[[Msg], Awaitable[None]]:
        slots = asyncio.Semaphore(self._concurrency)

        async def receive(message: Msg) -> None:
            self._stats["messages"] += 1
            if inspect.iscoroutinefunction(function):
                await slots.acquire()
                task = self._dispatcher.spawn(call(message))
                task.add_done_callback(lambda _: slots.release())
            else:
                await call(message)

        async def call(message: Msg) -> None:
            try:
                result = function(message)
                if result is not None:
                    await result
            except Exception as error:  # noqa: BLE001 - one bad message must not end the subscription
                self._stats["failed"] += 1
                self._limited.warning(
                    f"{type(error).__name__} on {subject}", "message was not handled", exc_info=error
                )

        return receive
