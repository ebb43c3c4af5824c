"""Timestamps that the clock of this machine contradicts: which they are, and how often that is said."""

import pytest
from kaa_gateway.bus.clock_skew import INSTANCES_MAX, OTHER, PERIOD, ClockSkew
from kaa_gateway.bus.messages import now_ms
from structlog.testing import capture_logs

HOUR = 3_600_000
MINUTE = 60_000


@pytest.mark.parametrize(
    ("age", "timeout", "earliest", "noted"),
    [
        (0, 0, None, False),
        (0, 5000, None, False),
        (-500, 5000, None, False),
        (-5000, 5000, None, True),
        (-5000, 0, None, True),
        (-(2**63), 0, None, True),
        # Late, but perhaps only slow.
        (6000, 5000, None, False),
        (MINUTE, 5000, None, False),
        # NATS does not hold a message so long.
        (MINUTE + 10_000, 5000, None, True),
        (HOUR, 5000, None, True),
        (HOUR, 0, None, False),
        (HOUR, 2 * HOUR, None, False),
        # Older than the request that it answers.
        (6000, 5000, 2000, True),
        (6000, 0, 2000, True),
        (6000, 5000, 7000, False),
        (2500, 1000, 2000, False),
    ],
)
def test_which_timestamps_are_wrong(age: int, timeout: int, earliest: int | None, noted: bool) -> None:
    skew = ClockSkew()
    now = now_ms()
    skew.check("dcx", now - age, timeout, 0 if earliest is None else now - earliest)
    assert skew.counts == ({"dcx": 1} if noted else {})


def test_it_is_said_once_in_a_period_for_each_instance_and_counted_each_time() -> None:
    time = 1000.0
    skew = ClockSkew(lambda: time)
    with capture_logs() as logs:
        for _ in range(100):
            skew.check("dcx", now_ms() - HOUR, 5000)
            skew.check("cex", now_ms() + HOUR, 5000)
        assert [(each["instance"], round(each["seconds"])) for each in logs] == [
            ("dcx", -3600),
            ("cex", 3600),
        ]
        time += PERIOD
        skew.check("dcx", now_ms() - HOUR, 5000)
        assert len(logs) == 3
    assert skew.counts == {"dcx": 101, "cex": 100}


def test_the_table_is_bounded() -> None:
    skew = ClockSkew()
    with capture_logs() as logs:
        for number in range(INSTANCES_MAX + 10):
            skew.check(f"made-up-{number}", now_ms() + HOUR, 0)
    assert len(skew.counts) == INSTANCES_MAX + 1
    assert skew.counts[OTHER] == 10
    assert len(logs) == INSTANCES_MAX + 1
