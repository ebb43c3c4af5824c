"""Log lines: their form, their level, and how many of a kind there may be."""

import io
import json
import logging
import random
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog
from kaa_gateway import logs
from kaa_gateway.logs import KINDS_MAX, LIMIT, PERIOD, Limiter
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.unit.kp.worker_double import APP, WorkerDouble


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def passed(limiter: Limiter, event: str, reason: str | None = None) -> dict[str, object] | None:
    """The line that comes out, or None."""
    line: dict[str, object] = {"event": event} if reason is None else {"event": event, "reason": reason}
    try:
        return dict(limiter(None, "info", line))
    except structlog.DropEvent:
        return None


def test_lines_of_a_kind_beyond_the_limit_are_dropped_and_counted() -> None:
    clock = Clock()
    limiter = Limiter(clock)
    assert sum(passed(limiter, "closed", "malformed") is not None for _ in range(LIMIT + 7)) == LIMIT
    assert passed(limiter, "closed", "slow") == {"event": "closed", "reason": "slow"}
    assert limiter.dropped == 7
    clock.now += PERIOD
    assert passed(limiter, "closed", "malformed") == {
        "event": "closed",
        "reason": "malformed",
        "suppressed": 7,
    }
    assert passed(limiter, "closed", "malformed") == {"event": "closed", "reason": "malformed"}


def test_an_attack_of_any_rate_writes_only_so_much() -> None:
    clock = Clock()
    limiter = Limiter(clock)
    random_ = random.Random(1)
    lines = 0
    end = clock.now + 100 * PERIOD
    while clock.now < end:
        lines += passed(limiter, "closed", "malformed") is not None
        clock.now += random_.expovariate(50 / PERIOD)
    assert lines <= 101 * LIMIT


def test_kinds_are_bounded() -> None:
    limiter = Limiter(Clock())
    for number in range(3 * KINDS_MAX):
        assert passed(limiter, f"event {number}") is not None
    assert len(limiter._kinds) <= KINDS_MAX


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, as JSON, with nothing counted before; afterwards all is as before."""
    monkeypatch.setattr(logs, "limiter", Limiter())
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    with redirect_stderr(stream):
        logs.configure("info", "json")
        yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_and_those_of_libraries_too(output: io.StringIO) -> None:
    structlog.get_logger("gateway").info("served", port=1883)
    logging.getLogger("asyncio").error("task %s failed", "x", exc_info=ValueError("why"))
    ours, theirs = lines(output)
    assert (ours["event"], ours["level"], ours["port"]) == ("served", "info", 1883)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("task x failed", "error", "asyncio")
    assert "ValueError: why" in theirs["exception"]


def test_lines_of_a_library_are_limited_whatever_they_say(output: io.StringIO) -> None:
    """As asyncio's, which name the connection whose callback has failed."""
    for number in range(3 * LIMIT):
        logging.getLogger("asyncio").error("failed: <Handle at 0x%x>", number)
    assert len(lines(output)) == LIMIT


def test_the_level_is_set_at_run_time(output: io.StringIO) -> None:
    log = structlog.get_logger("gateway")
    log.debug("one")
    logs.set_level("debug")
    log.debug("two")
    logging.getLogger("asyncio").debug("three")
    logs.set_level("error")
    log.warning("four")
    logging.getLogger("asyncio").warning("five")
    assert [line["event"] for line in lines(output)] == ["two", "three"]
    assert logs.level() == "error"


def test_lines_about_a_message_have_its_correlation_id(output: io.StringIO) -> None:
    with WorkerDouble() as worker:
        push = ExtensionData("push-1", 0, 0, APP, "dcx", "nobody", "/json", None, b"", 200, None)
        worker.deliver(encode_extension_data(*push))
        assert lines(output) == []
        logs.set_level("debug")
        worker.deliver(encode_extension_data(*push))
        worker.deliver(encode_extension_data(*push._replace(correlation_id="push-2", timestamp=1, timeout=1)))
        device = worker.device()
        device.publish(f"kp1/{APP}/tsx/time/1")
        ((subject, data),) = worker.published()
        worker.no_responders(subject)
    found = [
        (line["event"], line["reason"], line["correlation_id"])
        for line in lines(output)
        if line["event"].startswith("message")
    ]
    assert found == [
        ("message dropped", "unknown_endpoint", "push-1"),
        ("message dropped", "expired", "push-2"),
        ("message refused", "no_responders", data.correlation_id),
    ]
    assert lines(output)[-1]["extension"] == "tsx"
