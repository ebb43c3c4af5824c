"""What the log says while JetStream does not store sessions (session_storage.pyx): each trouble once."""

from __future__ import annotations

import structlog

log = structlog.get_logger("gateway.fleet")

TROUBLES_MAX = 16
"""Kinds of failures that are logged, one line each, until sessions are stored again."""
QUIET = 5.0
"""Seconds without a failure after which sessions count as stored again: others may fail while one is stored."""


class StorageReport:
    """The troubles of one worker with its stream."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._troubles: set[str] = set()
        self._failed_at = 0.0

    def fail(self, trouble: str, now: float) -> None:
        """Report that a session has not been stored, at loop time `now`."""
        self._failed_at = now
        if trouble not in self._troubles and len(self._troubles) < TROUBLES_MAX:
            self._troubles.add(trouble)
            log.error("sessions are not stored, trying on", stream=self._stream, error=trouble)

    def check(self, now: float) -> None:
        """Report that sessions are stored again; call now and then while the last write has succeeded."""
        if self._troubles and now - self._failed_at >= QUIET:
            self._troubles.clear()
            log.info("sessions are stored again", stream=self._stream)
