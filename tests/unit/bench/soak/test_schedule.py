from itertools import islice

from kaa_bench.soak.faults import FAULTS, device_network_reset, nats_killed
from kaa_bench.soak.schedule import Step, rounds

ALL = (*FAULTS, nats_killed)


def first(count: int, seed: int) -> list[list[Step]]:
    return list(islice(rounds(ALL, 5.0, seed), count))


def test_a_seed_gives_the_same_schedule_again() -> None:
    assert first(5, seed=7) == first(5, seed=7)
    assert first(5, seed=7) != first(5, seed=8)


def test_each_round_has_every_fault_in_another_order() -> None:
    found = first(5, seed=7)
    orders = [[step.faults[0] for step in steps] for steps in found]
    assert all(sorted(order, key=ALL.index) == list(ALL) for order in orders)
    assert len({tuple(order) for order in orders}) == 5


def test_pauses_and_company_differ() -> None:
    steps = [step for steps in first(20, seed=7) for step in steps]
    assert 1.0 <= min(step.pause_s for step in steps) < 2.0
    assert 8.0 < max(step.pause_s for step in steps) <= 9.0
    together = [step.faults[1] for step in steps if len(step.faults) > 1]
    assert set(together) == {device_network_reset}
    assert len(steps) / 5 < len(together) < len(steps) / 2
