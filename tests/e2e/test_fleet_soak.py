"""The fleet soak in its short form: each fault once, under clients that roam between three gateways."""

import pytest
from kaa_bench.fleet.faults import FAULTS
from kaa_bench.fleet.report import print_fleet
from kaa_bench.fleet.run import FleetRun
from rich.console import Console

CLIENTS = 300


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_three_gateways_are_one_whatever_breaks() -> None:
    run = FleetRun(
        print, clients=CLIENTS, processes=2, send_s=3, roam_s=8, pause_s=3, seed=21,
    )  # fmt: skip
    result = await run.run(seconds=30)
    print_fleet(result, CLIENTS, Console())
    tally = result.tally
    assert result.violations() == 0
    assert result.faults.keys() == {fault.__name__ for fault in FAULTS}
    assert result.presence_checks >= 3
    assert tally.taken_over > CLIENTS / 10
    assert min(tally.by_password, tally.by_certificate) > CLIENTS / 4
    assert min(tally.aborted, tally.left, tally.cut, tally.resumed) > 0
    assert result.recorded >= tally.acknowledged > CLIENTS
    # Only a worker that is killed takes pushes and answers along.
    assert min(tally.pushed, tally.answered) > result.recorded / 2
