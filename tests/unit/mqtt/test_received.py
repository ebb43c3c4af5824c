"""The table of QoS 2 messages between PUBLISH and PUBREL, beside a Python set (MQTT 3.1.1 sections 2.3.1, 4.3.3)."""

import random

import pytest
from kaa_gateway.mqtt.received import check

BYTES_PER_MESSAGE_MAX = 64
"""A table of 16 bytes a slot is at most half full, and at least a quarter when it has just grown."""


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("spread", [1, 2, 256, 4096])
def test_identifiers_come_and_go_as_in_a_set(seed: int, spread: int) -> None:
    """With identifiers that crowd together in the table, and ones that do not."""
    source = random.Random(seed)
    identifiers = [number for number in range(1, 65_536, spread) if number < 65_536][:300]
    steps = [
        (source.choice(("put", "put", "discard")), source.choice(identifiers))
        for _ in range(source.randrange(1, 1500))
    ]
    expected: set[int] = set()
    for step, packet_id in steps:
        if step == "put":
            expected.add(packet_id)
        else:
            expected.discard(packet_id)
    assert check(steps)[0] == expected


def test_all_identifiers_at_once() -> None:
    steps = [("put", packet_id) for packet_id in range(1, 65_536)]
    found, size = check(steps)
    assert len(found) == 65_535
    assert size <= 65_536 * BYTES_PER_MESSAGE_MAX
    random.Random(1).shuffle(steps)
    found, size = check([*steps, *(("discard", packet_id) for _, packet_id in steps)])
    assert (found, size) == (set(), 0)
