"""Clients are sent away at a rate, and in time; a clock of the test's own."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from kaa_gateway.app import redirecting
from kaa_gateway.app.redirecting import redirect_clients


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        fake = SimpleNamespace(
            get_running_loop=lambda: SimpleNamespace(time=lambda: self.now), sleep=self.sleep
        )
        monkeypatch.setattr(redirecting, "asyncio", fake)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Clients:
    """So many clients, each of which goes when it is told."""

    def __init__(self, clock: Clock, count: int) -> None:
        self._clock = clock
        self.left = count
        self.times: list[float] = []

    def client_count(self) -> int:
        return self.left

    def redirect(self, count: int, *, permanent: bool) -> int:
        gone = min(count, self.left)
        self.left -= gone
        self.times += [self._clock.now] * gone
        return gone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(clients: Any, rate: float, **options: Any) -> int:
    return asyncio.run(redirect_clients(clients, rate, **options))


def test_no_second_has_more_than_the_rate(clock: Clock) -> None:
    clients = Clients(clock, 1000)
    assert run(clients, 100) == 1000
    for begin in range(100, 112):
        assert len([time for time in clients.times if begin <= time < begin + 1]) <= 101
    assert 109 < clock.now < 111


def test_the_rate_rises_to_be_done_in_time(clock: Clock) -> None:
    clients = Clients(clock, 100_000)
    assert run(clients, 10, deadline=120.0) == 100_000
    assert clock.now <= 120.5


def test_a_number_of_clients(clock: Clock) -> None:
    clients = Clients(clock, 100)
    assert run(clients, 50, count=30) == 30
    assert clients.left == 70


def test_without_a_rate_all_go_at_once(clock: Clock) -> None:
    clients = Clients(clock, 5000)
    assert run(clients, 0) == 5000
    assert clock.now == 100.0


def test_nobody_is_there(clock: Clock) -> None:
    assert run(Clients(clock, 0), 5) == 0


def test_a_time_that_is_over(clock: Clock) -> None:
    assert run(Clients(clock, 3000), 1, deadline=90.0) == 3000
