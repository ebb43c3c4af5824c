"""The messages of other services that an extension subscribes to, and the functions that take them."""

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from nats.aio.msg import Msg

from kaa_ext.sdk.connection import Interest
from kaa_ext.sdk.dispatcher import Dispatcher
from kaa_ext.sdk.logs import LimitedLog
from kaa_ext.sdk.message_batches import BatchSubscriber, MessageBatches
from kaa_ext.sdk.receivers import MessageReceiver
from kaa_ext.sdk.waiting_messages import WaitingMessages

Subscriber: TypeAlias = Callable[[Msg], Awaitable[None] | None]


class Subscriptions:
    """All that an extension subscribes to when it connects.

    At most `concurrency` async calls of each subscriber run at a time; a drain waits for them. Further messages wait;
    beyond `waiting_max` messages or `waiting_bytes_max` bytes they are dropped and counted.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        limited: LimitedLog,
        concurrency: int,
        waiting_max: int,
        waiting_bytes_max: int,
    ) -> None:
        self.interests: list[Interest] = []
        self._calls: list[_Calls | MessageBatches] = []
        self._dispatcher = dispatcher
        self._limited = limited
        self._limits = (concurrency, waiting_max, waiting_bytes_max)

    @property
    def waiting(self) -> int:
        """Return how many messages wait for calls to end."""
        return sum(each.waiting for each in self._calls)

    def add(self, subject: str, queue: str, function: Subscriber, *, answers: bool) -> None:
        """Have a function called for each message on a subject. Its errors are logged and counted."""
        calls = _Calls(subject, function, self._dispatcher, self._limited, *self._limits)
        self._calls.append(calls)
        self.interests.append(
            Interest(subject, queue, MessageReceiver(calls.receive), "answers" if answers else "messages")
        )

    def add_batch(self, subject: str, queue: str, function: BatchSubscriber) -> None:
        """Have a function called with lists of the messages on a subject. Its errors are logged and counted."""
        calls = MessageBatches(subject, function, self._dispatcher, self._limited, *self._limits[1:])
        self._calls.append(calls)
        self.interests.append(Interest(subject, queue, MessageReceiver(calls.receive)))


class _Calls:
    """The calls of one subscriber."""

    def __init__(
        self,
        subject: str,
        function: Subscriber,
        dispatcher: Dispatcher,
        limited: LimitedLog,
        concurrency: int,
        waiting_max: int,
        waiting_bytes_max: int,
    ) -> None:
        self._subject = subject
        self._function = function
        self._dispatcher = dispatcher
        self._stats = dispatcher.stats
        self._concurrency = concurrency
        self._asynchronous = inspect.iscoroutinefunction(function)
        self._running = 0
        self._queue = WaitingMessages(dispatcher, limited, waiting_max, waiting_bytes_max)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def receive(self, message: Msg) -> None:
        self._stats["messages"] += 1
        if not self._asynchronous:
            self._call(message)
        elif self._running < self._concurrency:
            self._start(self._function(message))
        else:
            self._queue.put(message)

    def _call(self, message: Msg) -> None:
        try:
            result = self._function(message)
        except Exception as error:  # noqa: BLE001 - one bad message must not end the subscription
            self._dispatcher.extension.note_failure(error, self._subject)
        else:
            if result is not None:
                self._start(result)

    def _start(self, result: Awaitable[None] | None) -> None:
        self._running += 1
        self._dispatcher.spawn(self._finish(result))

    async def _finish(self, result: Awaitable[None] | None) -> None:
        try:
            if result is not None:
                await result
        except Exception as error:  # noqa: BLE001 - as above
            self._dispatcher.extension.note_failure(error, self._subject)
        finally:
            self._running -= 1
            if self._queue and self._running < self._concurrency:
                (message,) = self._queue.take()
                self._start(self._function(message))
