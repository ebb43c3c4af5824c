"""The last hour of a worker, from its counters."""

from types import SimpleNamespace
from typing import Any

from kaa_gateway.admin.history import KEPT, PERIOD, History, merged
from kaa_gateway.counters import bucket_bounds

BUCKETS = len(bucket_bounds()) + 1


class Counted:
    """Counters and a histogram whose values a test sets."""

    def __init__(self) -> None:
        self.messages_in = 0
        self.reasons: dict[tuple[str, str], int] = {}
        self.confirmed = [0] * BUCKETS

    def by_version(self) -> dict[str, dict[tuple[str, str], int]]:
        return {"messages_in": {("mqtt", "v1"): self.messages_in}, "messages_out": {}}

    def by_protocol(self) -> dict[str, dict[str, int]]:
        return {"connections_opened": {"mqtt": 5, "http": 2}, "connections_closed": {"mqtt": 1, "http": 2}}

    def by_reason(self) -> dict[tuple[str, str], int]:
        return self.reasons

    def snapshot(self) -> tuple[list[int], float]:
        return list(self.confirmed), 0.0


def history_of(counted: Counted, times: list[float]) -> History:
    link = SimpleNamespace(ready=True, confirmation=counted)
    worker: Any = SimpleNamespace(counters=counted, link=link, pending={})
    return History(worker, lambda: times.pop(0))


def test_a_sample_has_rates_since_the_one_before() -> None:
    counted = Counted()
    history = history_of(counted, [100.0, 115.0, 130.0])
    counted.messages_in = 300
    counted.reasons = {
        ("refused", "no_route"): 20,
        ("dropped", "expired"): 10,
        ("closed", "mqtt_taken_over"): 99,
    }
    history.sample()
    counted.messages_in = 330
    history.sample()
    first, second = history.samples()
    assert (first["messagesIn"], first["lost"], first["connections"]) == (20, 2, 4)
    assert (second["messagesIn"], second["lost"]) == (2, 0)
    assert [first["at"], second["at"]] == [105, 120]


def test_latency_is_the_bound_below_which_99_of_100_are() -> None:
    counted = Counted()
    history = history_of(counted, [0.0, 15.0, 30.0, 45.0])
    counted.confirmed = [99, 0, 1] + [0] * (BUCKETS - 3)
    history.sample()
    counted.confirmed[2] += 5
    history.sample()
    history.sample()
    bounds = bucket_bounds()
    assert [each["confirmed"] for each in history.samples()] == [bounds[0], bounds[2], None]
    assert history.samples()[0]["answered"] is None


def test_what_is_above_all_bounds_is_shown_as_the_last() -> None:
    counted = Counted()
    history = history_of(counted, [0.0, 15.0])
    counted.confirmed[-1] = 1
    history.sample()
    assert history.samples()[0]["confirmed"] == bucket_bounds()[-1]


def test_an_hour_is_kept() -> None:
    history = history_of(Counted(), [float(PERIOD * number) for number in range(KEPT + 11)])
    for _ in range(KEPT + 10):
        history.sample()
    samples = history.samples()
    assert len(samples) == KEPT
    assert samples[-1]["at"] - samples[0]["at"] == 3600 - PERIOD


def sample(at: int, **values: Any) -> dict[str, Any]:
    nothing = {
        "messagesIn": 0,
        "messagesOut": 0,
        "lost": 0,
        "connections": 0,
        "confirmed": None,
        "answered": None,
    }
    return {"at": at, **nothing, "natsUp": True, **values}


def test_workers_are_added_up() -> None:
    one = [sample(0, messagesIn=1.5, confirmed=0.1), sample(15, connections=3)]
    other = [sample(15, connections=4, confirmed=0.2, natsUp=False), sample(30)]
    assert merged([one, other]) == [
        sample(0, messagesIn=1.5, confirmed=0.1),
        sample(15, connections=7, confirmed=0.2, natsUp=False),
        sample(30),
    ]
    assert one[1]["connections"] == 3
