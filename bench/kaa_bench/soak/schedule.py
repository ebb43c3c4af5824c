"""The faults of a soak in a random order that a seed repeats.

The schedule consists of rounds. Each round has every fault once, in another order, with pauses of random length. With
some faults the devices' networks are reset at the same time.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kaa_bench.soak.faults import Fault, device_network_reset

PAUSE_MIN, PAUSE_MAX = 0.2, 1.8
"""The bounds of a pause, as multiples of the mean."""
TOGETHER = 0.3
"""The probability that a fault comes together with a reset of the devices' networks."""


class Step(NamedTuple):
    """A pause, and the faults that are caused together after it."""

    pause_s: float
    faults: tuple[Fault, ...]


def rounds(faults: Sequence[Fault], pause_s: float, seed: int) -> Iterator[list[Step]]:
    """Yield rounds without end. `pause_s` is the mean of the pauses."""
    chance = random.Random(seed)
    while True:
        yield [
            Step(pause_s * chance.uniform(PAUSE_MIN, PAUSE_MAX), _together(fault, chance))
            for fault in chance.sample(faults, len(faults))
        ]


def _together(fault: Fault, chance: random.Random) -> tuple[Fault, ...]:
    if chance.random() < TOGETHER and fault is not device_network_reset:
        return fault, device_network_reset
    return (fault,)
