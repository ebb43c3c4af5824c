"""Clocks that differ: messages of other services whose timestamps the clock of this machine contradicts.

A message of 3/ISM expires by its timestamp and time-out. If two clocks differ by more than the time-out, each message
has expired when it comes. Others drop it; this module counts it and says why.

Source: 3/ISM "Inter-Service Messaging", timestamp and timeout.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from kaa_gateway.bus.messages import now_ms

log = structlog.get_logger("gateway.bus")

TOLERANCE_MS = 1000
"""Milliseconds that clocks may differ."""
HELD_MAX_MS = 60_000
"""Milliseconds behind its deadline after which a message was not just slow: NATS does not hold messages so long."""
PERIOD = 600.0
"""Seconds between two log lines about the same service instance."""
INSTANCES_MAX = 1000
"""Service instances that are told apart; all others count as OTHER."""
OTHER = "other"


class ClockSkew:
    """Counts messages with contradicted timestamps by the instance that has sent them, and logs them now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        """Messages by service instance."""

    def check(self, instance: str, timestamp: int, timeout: int, earliest: int = 0) -> None:
        """Note a message if its timestamp cannot be right. Times are milliseconds.

        `earliest` is when it can have been sent at the earliest, by our clock: for an answer, the time of its request.
        """
        now = now_ms()
        if timestamp > now + TOLERANCE_MS:
            self._note(instance, timestamp - now)
        elif timestamp < earliest - TOLERANCE_MS:
            self._note(instance, timestamp - earliest)
        elif 0 < timeout < now - timestamp - HELD_MAX_MS:
            self._note(instance, timestamp - now)

    def _note(self, instance: str, difference: int) -> None:
        if instance not in self.counts and len(self.counts) >= INSTANCES_MAX:
            instance = OTHER
        self.counts[instance] = self.counts.get(instance, 0) + 1
        now = self._clock()
        said = self._said.get(instance)
        if said is None or now - said >= PERIOD:
            self._said[instance] = now
            log.warning(
                "the timestamp of a message is wrong: the clocks of two machines differ, or the message was held up",
                instance=instance,
                seconds=difference / 1000,
            )
