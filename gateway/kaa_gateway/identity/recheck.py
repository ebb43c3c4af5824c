"""Checking the tokens in use again, after revocations may have been missed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.provider import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.identity.service import SessionRegistry
    from kaa_gateway.slices import Slices

RECHECK_PAUSE = 5.0
"""Seconds before tokens are checked again about which no provider could answer."""
RECHECKED_AT_ONCE = 256
"""Tokens in use that are checked at one time."""

log = structlog.get_logger("gateway.identity")


class TokenRecheck:
    """Resolves the tokens in use again, and ends the use of those that are refused or are another endpoint's."""

    def __init__(self, resolve: Callable[[str, str], asyncio.Future[Identity]]) -> None:
        self._resolve = resolve
        self._task: asyncio.Task[None] | None = None

    def start(self, sessions: SessionRegistry, slices: Slices) -> None:
        """Begin, in place of a check that is under way."""
        self.stop()
        self._task = asyncio.get_running_loop().create_task(self._check(sessions, slices))

    def stop(self) -> None:
        """End a check that is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _check(self, sessions: SessionRegistry, slices: Slices) -> None:
        left = await slices.finish(sessions.tokens_in_use())
        log.info("checking tokens in use: revocations may have been missed", tokens=len(left))
        while left:
            unanswered = []
            for start in range(0, len(left), RECHECKED_AT_ONCE):
                some = left[start : start + RECHECKED_AT_ONCE]
                answers = await asyncio.gather(
                    *(self._resolve(version.decode(), token.decode()) for _, version, token, _ in some),
                    return_exceptions=True,
                )
                for use, answer in zip(some, answers, strict=True):
                    session_key, version, token, endpoint_id = use
                    if isinstance(answer, Identity):
                        if answer.endpoint_id.encode() != endpoint_id:
                            sessions.end_use(session_key, version, token)
                    elif isinstance(answer, IdentityError) and answer.status < 500:
                        sessions.end_use(session_key, version, token)
                    else:
                        unanswered.append(use)
            left = unanswered
            if left:
                await asyncio.sleep(RECHECK_PAUSE)
