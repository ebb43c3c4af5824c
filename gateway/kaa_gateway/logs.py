"""The log of the gateway: lines on standard error, as JSON or for people, limited in number.

Logging never raises: a line that cannot be written is dropped and counted (`kaa_gateway.stdio`).

Lines of libraries (asyncio, aiohttp) go the same way. The limit counts lines by kind, so that peers cannot fill a disk.
The kind of a line is its text and reason, which hold no data of peers. The text of a library's line may hold anything,
so its kind is its logger.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import structlog
from structlog.typing import EventDict, WrappedLogger

from kaa_gateway import stdio

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

LIMIT = 10
"""Lines of one kind in a period. Further lines are dropped; the next line that is logged has their number."""
PERIOD = 10.0
"""Seconds."""
KINDS_MAX = 1000
"""Kinds that are counted; if there are more, all counts are reset."""


class Limiter:
    """A structlog processor that drops lines of a kind that is logged too often."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[object, object], list[float]] = {}
        self.dropped = 0

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Return the line, or drop it."""
        kind = (event.get("logger", event.get("event")), event.get("reason"))
        now = self._clock()
        state = self._kinds.get(kind)
        if state is None:
            if len(self._kinds) >= KINDS_MAX:
                self._kinds.clear()
            # Start of its period, lines logged in the period, lines dropped since the last that was logged.
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
    """Passes lines of libraries on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one line. Its arguments may not fit its text."""
        try:
            structlog.get_logger().log(
                record.levelno,
                record.getMessage(),
                logger=record.name,
                **({"exc_info": record.exc_info} if record.exc_info else {}),
            )
        except Exception:  # noqa: BLE001 - as in every handler of logging: the library goes on
            self.handleError(record)


def _safe(render: Any) -> Any:
    """Return a last processor that never raises. A line whose values cannot be shown loses them."""

    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> Any:
        text = str(event.get("event"))
        try:
            return render(logger, method, event)
        except Exception as error:  # noqa: BLE001 - a log line must not end the code that logs it
            return render(logger, method, {"event": text, "cannot_be_shown": type(error).__name__})

    return rendered


limiter = Limiter()
"""The limiter of this process."""
_level: Level = "info"


def configure(level: Level, style: str) -> None:
    """Log lines of `level` and above, in the style "json" or "console"."""
    stdio.protect()
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
            _safe(render),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    set_level(level)


def level() -> Level:
    """Return the least severe level that is logged."""
    return _level


def set_level(level: Level) -> None:
    """Log lines of `level` and above from now on."""
    global _level  # noqa: PLW0603 - as the configuration of structlog, it is the process's
    _level = level
    number = getattr(logging, level.upper())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(number)
