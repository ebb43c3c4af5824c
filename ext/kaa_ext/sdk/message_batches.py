"""Calls a function with lists of the messages of a subscription."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TypeAlias

from nats.aio.msg import Msg

from kaa_ext.sdk.dispatcher import Dispatcher
from kaa_ext.sdk.logs import LimitedLog

BatchSubscriber: TypeAlias = Callable[[list[Msg]], Awaitable[None]]

BATCH_MAX = 1024
"""Messages of a call."""


class MessageBatches:
    """The messages of one subscriber that wait for its next call; while a call runs, further messages gather.

    Beyond `waiting_max` messages or `waiting_bytes_max` bytes they are dropped and counted. A drain waits for calls.
    """

    def __init__(
        self,
        subject: str,
        function: BatchSubscriber,
        dispatcher: Dispatcher,
        limited: LimitedLog,
        waiting_max: int,
        waiting_bytes_max: int,
    ) -> None:
        self._subject = subject
        self._function = function
        self._dispatcher = dispatcher
        self._stats = dispatcher.stats
        self._limited = limited
        self._waiting_max = waiting_max
        self._waiting_bytes_max = waiting_bytes_max
        self._is_running = False
        self._queue: deque[Msg] = deque()
        self._queued_bytes = 0

    @property
    def waiting(self) -> int:
        """Return how many messages wait for the next call."""
        return len(self._queue)

    def receive(self, message: Msg) -> None:
        """Take a message."""
        self._stats["messages"] += 1
        size = len(message.data)
        if len(self._queue) >= self._waiting_max or self._queued_bytes + size > self._waiting_bytes_max:
            self._stats["overrun"] += 1
            self._limited.warning("overrun", "messages come in faster than they are handled and are dropped")
            return
        self._queue.append(message)
        self._queued_bytes += size
        if not self._is_running:
            self._is_running = True
            # After all messages of this turn of the event loop.
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._dispatcher.spawn(self._run())

    async def _run(self) -> None:
        try:
            while self._queue:
                batch = list(islice(self._queue, BATCH_MAX))
                for message in batch:
                    self._queue.popleft()
                    self._queued_bytes -= len(message.data)
                await self._call(batch)
        finally:
            self._is_running = False

    async def _call(self, batch: list[Msg]) -> None:
        try:
            await self._function(batch)
        except Exception as error:  # noqa: BLE001 - one bad message must not end the subscription
            self._dispatcher.extension.note_failure(error, self._subject)
