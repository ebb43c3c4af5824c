"""Requests to another service, answered on our replica's subject by a message with the request's correlation ID.

What lives here: finding who asked, and trying again within the time that there is. What does not: how many ask at once,
which is up to them.

Source: 3/ISM "Inter-Service Messaging", targeted messages and session affinity.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import structlog

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import is_expired, now_ms
from kaa_gateway.errors import BusError, MalformedAvro

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.bus.messages import Exchange

ATTEMPT_TIMEOUT = 2.0
"""Seconds after which a request that is not answered is sent again: NATS delivers at most once."""
PAUSE = 0.25
"""Seconds before another attempt where nobody took the request, or NATS was away."""

log = structlog.get_logger("gateway.bus")


class _Waiting:
    """A request under way. `wake` ends the present attempt."""

    def __init__(self) -> None:
        self.asked_at = now_ms()
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.wake = asyncio.Event()


class Requests:
    """Requests of one kind to one service instance."""

    def __init__(
        self,
        control: Control,
        replica_id: str,
        instance: str,
        protocol: str,
        exchange: Exchange,
    ) -> None:
        self._control = control
        self._instance = instance
        self._request = exchange.request.type
        self._answer = exchange.answer.type
        self._subject = subjects.service(instance, protocol, exchange.request.subject)
        self._reply = subjects.replica(replica_id, protocol, exchange.answer.subject)
        self._waiting: dict[str, _Waiting] = {}
        self.attempts = 0
        """Messages sent."""
        self.unanswered = 0
        """Attempts that nobody took, or that were not answered in time."""
        self.malformed = 0
        """Answers that are none, or have expired."""
        control.subscribe(self._reply, self._receive, unanswered=self._nobody)

    async def ask(self, timeout: float, **fields: Any) -> dict[str, Any]:
        """Return the fields of the answer. TimeoutError if there is none within `timeout` seconds."""
        correlation_id = str(uuid.uuid4())
        waiting = self._waiting[correlation_id] = _Waiting()
        datum = self._request.encode(correlation_id=correlation_id, timeout=timeout, **fields)
        try:
            async with asyncio.timeout(timeout):
                while not waiting.answer.done():
                    await self._attempt(waiting, datum)
                return waiting.answer.result()
        finally:
            del self._waiting[correlation_id]

    async def _attempt(self, waiting: _Waiting, datum: bytes) -> None:
        waiting.wake.clear()
        try:
            await self._control.send(self._subject, datum, self._reply)
        except BusError:
            await asyncio.sleep(PAUSE)
            return
        self.attempts += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ATTEMPT_TIMEOUT):
                await waiting.wake.wait()
        if not waiting.answer.done():
            self.unanswered += 1
            if waiting.wake.is_set():
                await asyncio.sleep(PAUSE)

    def _receive(self, subject: str, datum: bytes) -> None:
        try:
            fields = self._answer.decode(datum)
        except MalformedAvro as error:
            self.malformed += 1
            log.warning("answer dropped: malformed", subject=self._subject, message=error.detail)
            return
        waiting = self._waiting.get(fields["correlationId"])
        self._control.clock_skew.check(
            self._instance, fields["timestamp"], fields["timeout"], 0 if waiting is None else waiting.asked_at
        )
        if is_expired(fields):
            self.malformed += 1
            log.warning("answer dropped: expired", subject=self._subject)
            return
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(fields)
            waiting.wake.set()

    def _nobody(self) -> None:
        # NATS does not say which of the requests it was, but reports them in the order in which they were sent.
        # If it is another's turn, that one is sent once more than need be.
        for waiting in self._waiting.values():
            if not waiting.answer.done() and not waiting.wake.is_set():
                waiting.wake.set()
                return
