"""Calls a function with lists of the messages of a subscription."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from nats.aio.msg import Msg

from kaa_ext.sdk.dispatcher import Dispatcher
from kaa_ext.sdk.logs import LimitedLog
from kaa_ext.sdk.waiting_messages import WaitingMessages

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
        self._is_running = False
        self._queue = WaitingMessages(dispatcher, limited, waiting_max, waiting_bytes_max)

    @property
    def waiting(self) -> int:
        """Return how many messages wait for the next call."""
        return len(self._queue)

    def receive(self, message: Msg) -> None:
        """Take a message."""
        self._stats["messages"] += 1
        if self._queue.put(message) and not self._is_running:
            self._is_running = True
            # After all messages of this turn of the event loop.
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._dispatcher.spawn(self._run())

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._call(self._queue.take(BATCH_MAX))
        finally:
            self._is_running = False

    async def _call(self, batch: list[Msg]) -> None:
        try:
            await self._function(batch)
        except Exception as error:  # noqa: BLE001 - one bad message must not end the subscription
            self._dispatcher.extension.note_failure(error, self._subject)
