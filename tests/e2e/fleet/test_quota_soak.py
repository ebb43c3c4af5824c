"""Quotas under faults for a while: NATS is away, the configuration changes, a gateway is killed."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.load import Counter, Device
from tests.support.nats import NatsServer
from tests.support.proxy import FaultProxy

LIMIT = 500
PHASE_S = 5.0
SLACK = 1.25
"""After a fault, shares are late by up to the time in which a silent worker is forgotten."""
DEVICES = 4
WORKERS = 2


def settings(replica: str, limit: int) -> dict[str, Any]:
    return {
        "service": {"instance": {"replica": {"id": replica}}},
        "kaa": {
            "tenants": {"acme": {"quota": {"messages-per-second": limit, "messages-per-month": 10**9}}},
            "applications": {
                "app": {
                    "tenant": "acme",
                    "versions": {"app_v1": {"endpoint-quota": {"messages-per-second": limit}}},
                }
            },
            "kpc": {"workers": WORKERS},
        },
    }


@pytest.mark.slow
async def test_the_limit_holds_and_nothing_acknowledged_is_lost_through_faults() -> None:
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer(jetstream=True))
        proxy = stack.enter_context(FaultProxy(nats.port))
        one, two = (
            stack.enter_context(GatewayProcess(proxy.url, settings(name, LIMIT))) for name in ("one", "two")
        )
        async with Counter(nats.url) as counter:
            devices = [
                Device(gateway.mqtt_port, f"{name}-{number}", window=20)
                for name, gateway in (("one", one), ("two", two))
                for number in range(DEVICES)
            ]
            for device in devices:
                device.start()

            async def phase(what: str, fault: Callable[[], Awaitable[None]] | None = None) -> None:
                """Do something, and check what arrives in a while from then on."""
                before, begun = arrivals(counter), time.monotonic()
                if fault is not None:
                    await fault()
                await asyncio.sleep(PHASE_S)
                count, elapsed = arrivals(counter) - before, time.monotonic() - begun
                # What a second brings may pass at once, on each worker, when its share becomes larger.
                assert count <= SLACK * LIMIT * elapsed + 2 * LIMIT, what
                print(f"{what}: {count / elapsed:.0f} messages a second of {LIMIT}")

            async def cut_off() -> None:
                proxy.refuse()
                proxy.cut()
                await until(lambda: not one.ready() and not two.ready(), "NATS to be missed", 90)
                proxy.refuse(on=False)
                await until(lambda: one.ready() and two.ready(), "NATS to be back", 90)

            async def reload() -> None:
                for name, gateway in (("one", one), ("two", two)):
                    # The same limit once more, and another one of endpoints.
                    document = gateway.document_with(settings(name, LIMIT))
                    document["kaa"]["applications"]["app"]["versions"]["app_v1"]["endpoint-quota"] = {}
                    gateway.config_path.write_text(json.dumps(document))
                for gateway in (one, two):
                    await until(
                        lambda gateway=gateway: gateway.count("config_reloads", "applied") >= 1,  # type: ignore[misc]
                        "the configuration",
                        60,
                    )

            async def kill() -> None:
                one.kill()

            await phase("all well")
            await phase("NATS was away", cut_off)
            await phase("another configuration", reload)
            await phase("a gateway is killed", kill)
            remaining = devices[DEVICES:]
            await asyncio.gather(*(device.finish() for device in remaining))
            await asyncio.gather(*(device.ended() for device in devices[:DEVICES]))
            await counter.settle()
            for device in devices:
                assert counter.missing(device) == set()
            assert any(device.told for device in devices), "the quota was reached"
            assert two.ready()


def arrivals(counter: Counter) -> int:
    """How many different messages have arrived: some come twice after a restart of NATS."""
    return sum(len(set(numbers)) for numbers in counter.arrived.values())
