"""Asks an identity provider once per token, however many messages wait for the answer.

What lives here: sharing one request among those who wait, its time limit, and the bound on requests in
flight. What does not: a cache, and the queue of the messages that wait (`gateway.kp`).
"""

import asyncio
import functools
from typing import NamedTuple

import structlog

from gateway.errors import IdentityError
from gateway.identity.provider import Identity, IdentityProvider, shortened

MAX_IN_FLIGHT = 10_000
"""Requests to the provider at one time; a token beyond them is refused with 503 at once."""

IDENTITY_TIMEOUT = "identity_timeout"
IDENTITY_UNAVAILABLE = "identity_unavailable"
IDENTITY_BUSY = "identity_busy"

log = structlog.get_logger(__name__)


class _Request(NamedTuple):
    """One request in flight, and who waits for it."""

    task: asyncio.Task[Identity]
    waiters: list[asyncio.Future[Identity]]


class Resolver:
    """Resolves tokens through `provider`, which has `timeout` seconds for each."""

    def __init__(
        self, provider: IdentityProvider, timeout: float, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        self._provider = provider
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._in_flight: dict[tuple[str, str], _Request] = {}

    def resolve(self, app_version_name: str, token: str) -> asyncio.Future[Identity]:
        """The endpoint of `token`, in a future of the caller's own: cancelling it disturbs nobody else.

        Needs a running loop. The future's exception, which the caller looks at, is an `IdentityError`: the
        provider's, or one with status 503 and the reason `identity_timeout`, `identity_busy`, or
        `identity_unavailable` (the provider failed, or `stop` was called).
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Identity] = loop.create_future()
        key = (app_version_name, token)
        request = self._in_flight.get(key)
        if request is None:
            if len(self._in_flight) >= self._max_in_flight:
                waiter.set_exception(IdentityError(503, IDENTITY_BUSY))
                return waiter
            request = _Request(loop.create_task(self._ask(app_version_name, token)), [])
            request.task.add_done_callback(functools.partial(self._done, key))
            self._in_flight[key] = request
        request.waiters.append(waiter)
        return waiter

    async def stop(self) -> None:
        """Ends all requests in flight; who waits gets `identity_unavailable`."""
        tasks = [request.task for request in self._in_flight.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, key: tuple[str, str], task: asyncio.Task[Identity]) -> None:
        error = IdentityError(503, IDENTITY_UNAVAILABLE) if task.cancelled() else task.exception()
        for waiter in self._in_flight.pop(key).waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(task.result())
            else:
                waiter.set_exception(error)

    async def _ask(self, app_version_name: str, token: str) -> Identity:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._provider.resolve(app_version_name, token)
        except IdentityError:
            raise
        except TimeoutError:
            raise IdentityError(503, IDENTITY_TIMEOUT) from None
        except Exception as error:
            log.exception("identity provider failed", app_version=app_version_name, token=shortened(token))
            raise IdentityError(503, IDENTITY_UNAVAILABLE) from error
