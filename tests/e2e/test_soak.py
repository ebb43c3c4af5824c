"""The soak in its short form: each fault once, under devices on all transports."""

import pytest
from kaa_bench.soak.faults import FAULTS, device_network_reset, faults_of, nats_killed
from kaa_bench.soak.pushed_device import PushedDevice
from kaa_bench.soak.report import lost, print_soak, violations
from kaa_bench.soak.run import INSTANCES, KINDS, SERVICES, Soak
from kaa_bench.soak.services import EXCHANGES
from rich.console import Console

OF_SERVICES = {(SERVICES, f"{exchange.instance} {exchange.path}") for exchange in EXCHANGES}


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_nothing_acknowledged_is_lost_whatever_breaks() -> None:
    soak = Soak(print, devices=1, interval_s=0.03, pause_s=0.5, seed=21)
    accounts = await soak.run(seconds=1)
    print_soak(accounts, soak.findings, soak.faults, soak.datagrams, Console())
    assert lost(accounts) == violations(soak.findings) == 0
    counts = soak.faults
    assert counts.pop(device_network_reset.__name__) >= 1  # other faults may bring it along
    assert counts == {fault.__name__: 1 for fault in (*FAULTS, nats_killed) if fault != device_network_reset}
    assert all(finding.checked for finding in soak.findings.values())
    assert all(count > 0 for count in soak.datagrams)
    extensions = {(mode, kind.kind) for mode in INSTANCES for kind, _ in KINDS}
    assert accounts.keys() == extensions | OF_SERVICES | {("core", PushedDevice.kind)}
    for (mode, kind), account in accounts.items():
        if kind == PushedDevice.kind:
            continue
        assert account.sent > (3 if mode == SERVICES else 20)
        if mode != SERVICES:
            assert (account.acknowledged > 20) == (kind != "MQTT QoS 0")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_what_services_have_answered_is_stored_and_found_whatever_breaks() -> None:
    soak = Soak(print, devices=2, interval_s=0.03, pause_s=0.5, seed=21, only_services=True)
    accounts = await soak.run(seconds=1)
    print_soak(accounts, soak.findings, soak.faults, soak.datagrams, Console())
    assert lost(accounts) == violations(soak.findings) == 0
    faults = {fault.__name__ for fault in (*faults_of(only_services=True), nats_killed)}
    assert soak.faults.keys() == faults
    assert accounts.keys() == OF_SERVICES
    for account in accounts.values():
        assert account.acknowledged > 5
