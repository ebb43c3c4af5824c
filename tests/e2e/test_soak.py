"""The soak in its short form: each fault once, under devices on all transports."""

import pytest
from kaa_bench.soak.faults import FAULTS, nats_killed
from kaa_bench.soak.report import lost, print_soak
from kaa_bench.soak.run import INSTANCES, KINDS, SERVICES, Soak
from rich.console import Console


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_nothing_acknowledged_is_lost_whatever_breaks() -> None:
    soak = Soak(print, devices=1, interval_s=0.03, pause_s=0.5)
    accounts = await soak.run(seconds=1)
    print_soak(accounts, soak.faults, soak.datagrams, Console())
    assert lost(accounts) == 0
    assert soak.faults == {fault.__name__: 1 for fault in (*FAULTS, nats_killed)}
    assert all(count > 0 for count in soak.datagrams)
    extensions = {(mode, kind.kind) for mode in INSTANCES for kind, _ in KINDS}
    assert accounts.keys() == extensions | {(SERVICES, "HTTP")}
    for (_, kind), account in accounts.items():
        assert account.sent > 20
        assert (account.acknowledged > 20) == (kind != "MQTT QoS 0")
