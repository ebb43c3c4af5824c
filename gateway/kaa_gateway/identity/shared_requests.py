"""One request for each question, shared by all who wait for its answer, and a bound of requests at one time.

What lives here: sharing a request, its time limit, and the pace at which requests go out. What does not: the requests
themselves, and caches of answers.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

from kaa_gateway.errors import IdentityError

MAX_IN_FLIGHT = 10_000
"""Questions that may wait for their answers at one time; one more is refused with 503 at once."""

IDENTITY_TIMEOUT = "identity_timeout"
IDENTITY_UNAVAILABLE = "identity_unavailable"
IDENTITY_BUSY = "identity_busy"

log = structlog.get_logger(__name__)

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


class _Request(Generic[Answer]):
    """The request of one question, and the futures of those who wait. `deadline` is a loop time."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.waiters: list[asyncio.Future[Answer]] = []
        self.task: asyncio.Task[Answer] | None = None


class SharedRequests(Generic[Question, Answer]):
    """Calls `ask` for each question, with a limit of `timeout` seconds that includes the wait for its turn.

    At most `concurrent` requests are under way at one time. At most `max_in_flight` questions wait, in their order,
    including those. `shown` returns how a log may show a question.
    """

    def __init__(
        self,
        ask: Callable[[Question], Awaitable[Answer]],
        timeout: float,
        *,
        concurrent: int = MAX_IN_FLIGHT,
        max_in_flight: int = MAX_IN_FLIGHT,
        shown: Callable[[Question], str] = lambda question: "…",
    ) -> None:
        self._ask_provider = ask
        self._timeout = timeout
        self._concurrent = concurrent
        self._max_in_flight = max_in_flight
        self._shown = shown
        self._requests: dict[Question, _Request[Answer]] = {}
        self._queue: deque[Question] = deque()
        self._running = 0
        self.asked = 0
        """Questions that have been under way."""

    def __len__(self) -> int:
        return len(self._requests)

    def ask(self, question: Question) -> asyncio.Future[Answer]:
        """Return a future of the answer. It is the caller's own: others are not affected if it is cancelled.

        Needs a running loop. The exception of the future is an `IdentityError`: that of `ask`, or one with status 503
        and the reason `identity_timeout`, `identity_busy`, or `identity_unavailable`
        (`ask` failed, or `stop` was called).
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Answer] = loop.create_future()
        request = self._requests.get(question)
        if request is None:
            if len(self._requests) >= self._max_in_flight:
                waiter.set_exception(IdentityError(503, IDENTITY_BUSY))
                return waiter
            request = self._requests[question] = _Request(loop.time() + self._timeout)
            self._queue.append(question)
            self._start_next()
        request.waiters.append(waiter)
        return waiter

    async def stop(self) -> None:
        """End all requests; those who wait get `identity_unavailable`."""
        self._queue.clear()
        requests, self._requests = self._requests, {}
        tasks = [request.task for request in requests.values() if request.task is not None]
        for request in requests.values():
            _fail(request, IdentityError(503, IDENTITY_UNAVAILABLE))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_next(self) -> None:
        while self._queue and self._running < self._concurrent:
            question = self._queue.popleft()
            request = self._requests[question]
            loop = asyncio.get_running_loop()
            if request.deadline <= loop.time():
                del self._requests[question]
                _fail(request, IdentityError(503, IDENTITY_TIMEOUT))
                continue
            self._running += 1
            self.asked += 1
            request.task = loop.create_task(self._ask(question, request.deadline))
            request.task.add_done_callback(functools.partial(self._done, question))

    def _done(self, question: Question, task: asyncio.Task[Answer]) -> None:
        self._running -= 1
        request = self._requests.pop(question, None)
        if request is None:
            return  # stopped meanwhile
        error = IdentityError(503, IDENTITY_UNAVAILABLE) if task.cancelled() else task.exception()
        if error is not None:
            _fail(request, error)
        else:
            for waiter in request.waiters:
                if not waiter.done():
                    waiter.set_result(task.result())
        self._start_next()

    async def _ask(self, question: Question, deadline: float) -> Answer:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._ask_provider(question)
        except IdentityError:
            raise
        except TimeoutError:
            raise IdentityError(503, IDENTITY_TIMEOUT) from None
        except Exception as error:
            log.exception("identity provider failed", about=self._shown(question))
            raise IdentityError(503, IDENTITY_UNAVAILABLE) from error


def _fail(request: _Request[Answer], error: BaseException) -> None:
    for waiter in request.waiters:
        if not waiter.done():
            waiter.set_exception(error)
