"""The messages of one subscriber that wait until they can be handled."""

from collections import deque

from nats.aio.msg import Msg

from kaa_ext.sdk.dispatcher import Dispatcher
from kaa_ext.sdk.logs import LimitedLog


class WaitingMessages:
    """A queue. Beyond `count_max` messages or `bytes_max` bytes they are dropped and counted."""

    def __init__(self, dispatcher: Dispatcher, limited: LimitedLog, count_max: int, bytes_max: int) -> None:
        self._stats = dispatcher.stats
        self._limited = limited
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._queue: deque[Msg] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: Msg) -> bool:
        """Let a message wait; return False if it is dropped."""
        size = len(message.data)
        if len(self._queue) >= self._count_max or self._bytes + size > self._bytes_max:
            self._stats["overrun"] += 1
            self._limited.warning("overrun", "messages come in faster than they are handled and are dropped")
            return False
        self._queue.append(message)
        self._bytes += size
        return True

    def take(self, count: int = 1) -> list[Msg]:
        """Remove the oldest messages, at most `count`, and return them."""
        taken = [self._queue.popleft() for _ in range(min(count, len(self._queue)))]
        self._bytes -= sum(len(message.data) for message in taken)
        return taken
