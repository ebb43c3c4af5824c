"""Log lines of the gateway: to standard error, as JSON or for people, and never more than a disk can bear.

Lines of libraries (asyncio, aiohttp) come the same way. What a peer can cause to be logged is limited by kind, which
is the line's text and reason: both are ours, so that there are few kinds. Libraries put anything into their text: each
of their loggers is a kind.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, WrappedLogger

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

LIMIT = 10
"""Lines of one kind in a period; those beyond are dropped, and their number stands in the next line that is not."""
PERIOD = 10.0
"""Seconds."""
KINDS_MAX = 1000
"""Kinds that are counted apart; beyond, the counts begin anew."""


class Limiter:
    """A structlog processor that drops lines of a kind which come too often."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[object, object], list[float]] = {}
        self.dropped = 0

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Let a line pass, or drop it."""
        kind = (event.get("logger", event.get("event")), event.get("reason"))
        now = self._clock()
        state = self._kinds.get(kind)
        if state is None:
            if len(self._kinds) >= KINDS_MAX:
                self._kinds.clear()
            # When its period began, its lines in that, and those dropped since the last that was not.
            state = self._kinds[kind] = [now, 0, 0]
        if now - state[0] >= PERIOD:
            state[0] = now
            state[1] = 0
        if state[1] >= LIMIT:
            state[2] += 1
            self.dropped += 1
            raise structlog.DropEvent
        state[1] += 1
        if state[2]:
            event["suppressed"] = int(state[2])
            state[2] = 0
        return event


class _Library(logging.Handler):
    """Hands lines of libraries on."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            record.getMessage(),
            logger=record.name,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


limiter = Limiter()
"""The process's own."""
_level: Level = "info"


def configure(level: Level, style: str) -> None:
    """Log `level` and above, as "json" or "console"."""
    logging.basicConfig(handlers=[_Library()], force=True)
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    render: Any = structlog.processors.JSONRenderer()
    if style == "console":
        render = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            limiter,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *([structlog.processors.format_exc_info] if style == "json" else []),
            render,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    set_level(level)


def level() -> Level:
    """The least severe level that is logged."""
    return _level


def set_level(level: Level) -> None:
    """Log `level` and above from now on."""
    global _level  # noqa: PLW0603 - as the configuration of structlog, it is the process's
    _level = level
    number = getattr(logging, level.upper())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(number)
