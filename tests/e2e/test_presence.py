"""The presence bucket of two gateways, as a service that starts late sees it: kaa_ext.sdk.presence on real NATS."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import nats
import pytest
from kaa_bench.mqtt_packets import Publish
from kaa_ext.sdk.presence import Presence
from nats.aio.client import Client

from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.nats import NatsServer

APP = "app_v1"
LEASE = 3


def replica(name: str, **events: Any) -> dict[str, Any]:
    return {
        "service": {"instance": {"replica": {"id": name}}},
        "kaa": {
            "kpc": {"events": {"presence": True, "presence-lease": LEASE, "traffic-period": 1, **events}}
        },
    }


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as server:
        yield server


@pytest.fixture
def one(nats_server: NatsServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(nats_server.url, replica("one")) as process:
        yield process
        assert "Traceback" not in process.log, process.log


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    connection = await nats.connect(nats_server.url)
    yield connection
    await connection.close()


async def speak(stack: AsyncExitStack, gateway: GatewayProcess, token: str) -> Any:
    """A device that is connected and has spoken for an endpoint, whose ID is its token."""
    peer = await stack.enter_async_context(mqtt_client(gateway.mqtt_port, f"client-{token}"))
    await peer.send(Publish(f"kp1/{APP}/dcx/{token}/json", b"{}", 1, 1))
    await peer.receive()
    return peer


async def watching(client: Client, count: int) -> Presence:
    """The picture of a service that starts when there are so many endpoints."""
    for _ in range(200):
        try:
            presence = Presence(client)
            await presence.__aenter__()
        except Exception:  # noqa: BLE001 - the bucket is not there yet
            await asyncio.sleep(0.05)
            continue
        if len(presence.endpoint_ids()) >= count:
            return presence
        await presence.__aexit__()
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} endpoints")


async def test_a_late_service_has_the_whole_picture(
    nats_server: NatsServer, one: GatewayProcess, client: Client
) -> None:
    with GatewayProcess(nats_server.url, replica("two")) as two:
        async with AsyncExitStack() as stack:
            for number in range(5):
                await speak(stack, one, f"a{number}")
                await speak(stack, two, f"b{number}")
            odd = await speak(stack, two, "odd id.with*signs")
            presence = await watching(client, 11)
            (entry,) = presence.get("b3")
            assert (entry.replica, entry.app_version) == ("two", APP)
            assert (entry.protocol, entry.family) == ("mqtt", "ipv4")
            assert entry.since <= entry.last_seen
            assert [each.replica for each in presence.get("odd id.with*signs")] == ["two"]
            assert presence.get("nobody") == []

            # It goes on from there.
            await speak(stack, one, "late")
            await until(lambda: bool(presence.get("late")), "a new endpoint")
            await odd.abort()
            await until(lambda: not presence.get("odd id.with*signs"), "an endpoint to go")
            await speak(stack, two, "late")
            await until(lambda: len(presence.get("late")) == 2, "an endpoint at both")
            await presence.__aexit__()


async def test_last_seen_follows_the_traffic_reports(one: GatewayProcess, client: Client) -> None:
    async with AsyncExitStack() as stack:
        device = await speak(stack, one, "device")
        await speak(stack, one, "silent")
        presence = await watching(client, 2)
        first, silent = presence.get("device")[0].last_seen, presence.get("silent")[0].last_seen
        number = 1
        while presence.get("device")[0].last_seen <= first:
            number += 1
            await device.send(Publish(f"kp1/{APP}/dcx/device/json", b"{}", 0))
            await asyncio.sleep(0.2)
            assert number < 100
        assert presence.get("silent")[0].last_seen <= presence.get("device")[0].last_seen
        assert silent
        await presence.__aexit__()


async def test_a_replica_that_stops_takes_its_entries_along(one: GatewayProcess, client: Client) -> None:
    async with AsyncExitStack() as stack:
        await speak(stack, one, "device")
        presence = await watching(client, 1)
        one.stop()
        await until(lambda: not presence.endpoint_ids(), "the entries to go")
        await presence.__aexit__()


async def test_a_replica_that_dies_loses_its_lease(
    nats_server: NatsServer, one: GatewayProcess, client: Client
) -> None:
    async with AsyncExitStack() as stack:
        await speak(stack, one, "stays")
        with GatewayProcess(nats_server.url, replica("two")) as two:
            await speak(stack, two, "dies")
            presence = await watching(client, 2)
            two.kill()
            await until(lambda: presence.endpoint_ids() == ["stays"], "the lease to end", 40)
            # The survivor has removed the entries from the bucket, too.
            bucket = await client.jetstream().key_value("kpc-presence")
            await until(lambda: "its lease has run out" in one.log, "the survivor", 40)
            assert [key for key in await bucket.keys() if key.endswith(".two")] == []
        await presence.__aexit__()


async def test_nats_restarts_with_an_empty_memory(
    nats_server: NatsServer, one: GatewayProcess, client: Client
) -> None:
    async with AsyncExitStack() as stack:
        await speak(stack, one, "device")
        await (await watching(client, 1)).__aexit__()
        nats_server.kill()
        nats_server.start()
        await until(lambda: client.is_connected, "NATS", 40)
        presence = await watching(client, 1)
        assert presence.get("device")
        await presence.__aexit__()
