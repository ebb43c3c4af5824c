"""Log lines of extension services, and a rate limit for lines that a peer can cause."""

import logging
import sys
import time
from typing import Any, Literal, TypeAlias

import structlog
from kaa_gateway import stdio

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

LIMITED_LOG_INTERVAL_S = 10.0


def configure(level: LogLevel) -> None:
    """Send the log lines of this process, of this level and above, to stderr. Logging never raises."""
    stdio.protect()
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


class LimitedLog:
    """Logs each reason at most once per `LIMITED_LOG_INTERVAL_S`, with the number of lines left out since.

    A reason is a code of ours, never data of a peer: the table has an entry for each reason.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._seen: dict[str, tuple[float, int]] = {}

    def warning(self, reason: str, event: str, **details: object) -> None:
        """Log a warning, unless this reason was logged within the interval."""
        now = time.monotonic()
        logged_at, suppressed = self._seen.get(reason, (-LIMITED_LOG_INTERVAL_S, 0))
        if now - logged_at < LIMITED_LOG_INTERVAL_S:
            self._seen[reason] = (logged_at, suppressed + 1)
            return
        self._seen[reason] = (now, 0)
        if suppressed:
            details["suppressed"] = suppressed
        self._log.warning(event, reason=reason, **details)
