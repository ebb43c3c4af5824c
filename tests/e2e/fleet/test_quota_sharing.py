"""Quotas of two gateways over a real NATS server: the sum of their workers, a lost NATS, and the month's count."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import httpx
import msgspec
import nats
import nats.js.errors
import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_gateway.fleet.months import key_of
from kaa_gateway.fleet.quota_sharing import WORKERS_MAX, Demand, QuotaDemands, subject_of
from kaa_gateway.tasks import end_tasks

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess, merged
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import HOST, NatsServer

TENANT = "acme"
LIMIT = 1000
WINDOW_S = 3.0
WINDOWS = 10
"""Tried until one is right: on a busy machine, a worker may not run for a while, and then catch up."""
TOLERANCE = 0.05
CONNECTIONS = 6
"""To each gateway; the kernel chooses the worker of each."""
BATCH = 50
PAUSE_S = 0.02
TIMEOUT_S = 60.0


def settings(replica: str, workers: int = 2, **quota: int) -> dict[str, Any]:
    return {
        "service": {"instance": {"replica": {"id": replica}}},
        "kaa": {
            "tenants": {TENANT: {"quota": quota}},
            "applications": {"app": {"tenant": TENANT}},
            "kpc": {"workers": workers},
        },
    }


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as server:
        yield server


@pytest.fixture
async def cluster(nats_server: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(nats_server.url, "dcx") as cluster:
        yield cluster


async def quotas(*gateways: GatewayProcess) -> dict[str, dict[str, Any]]:
    """What each worker says of the tenant, by replica ID."""
    found = {}
    async with httpx.AsyncClient(timeout=60) as client:
        for gateway in gateways:
            answer = await client.get(f"http://{HOST}:{gateway.admin_port}/api/v1/quotas")
            found.update({each["replica"]: each for each in answer.json()["quotas"]})
    return found


async def eventually(check: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until an asynchronous check holds; an AssertionError naming `what` when it does not in time."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while not await check():
        assert asyncio.get_running_loop().time() < deadline, f"waited for {what}"
        await asyncio.sleep(0.1)


async def flood(peer: MqttPeer, token: str, batches: int) -> None:
    """Send messages that nobody acknowledges, without end."""
    batch = mqtt.encode(Publish(f"kp1/app_v1/dcx/{token}/json", b"x")) * BATCH * batches
    while True:
        await peer.send(batch)
        await asyncio.sleep(PAUSE_S)


async def rate(*gateways: GatewayProcess) -> float:
    """The messages a second that all workers let through, by their own clocks."""
    before = await quotas(*gateways)
    await asyncio.sleep(WINDOW_S)
    after = await quotas(*gateways)
    return sum(
        float(each["messagesPassed"] - before[name]["messagesPassed"])
        / float(each["at"] - before[name]["at"])
        for name, each in after.items()
    )


async def test_the_sum_of_all_workers_is_the_limit(nats_server: NatsServer, cluster: Cluster) -> None:
    with ExitStack() as stack:
        limit = {"messages-per-second": LIMIT}
        gateways = [
            stack.enter_context(GatewayProcess(nats_server.url, settings(name, **limit)))
            for name in ("one", "two")
        ]
        async with AsyncExitStack() as connections:
            floods = []
            for gateway, batches in zip(gateways, (3, 1), strict=True):
                for number in range(CONNECTIONS):
                    peer = await connections.enter_async_context(mqtt_client(gateway.mqtt_port))
                    token = f"{gateway.mqtt_port}-{number}"
                    floods.append(asyncio.create_task(flood(peer, token, batches)))

            async def all_heard() -> bool:
                shares = [each["messageShare"] for each in (await quotas(*gateways)).values()]
                return len(shares) == 4 and abs(sum(shares) - 1) < TOLERANCE

            await eventually(all_heard, "the workers know each other")
            rates = []
            for _ in range(WINDOWS):
                rates.append(await rate(*gateways))
                if abs(rates[-1] - LIMIT) <= TOLERANCE * LIMIT:
                    break
            assert abs(rates[-1] - LIMIT) <= TOLERANCE * LIMIT, rates
            print(f"messages a second of {LIMIT}: {rates}")

            # Without NATS, each worker keeps its share, and devices stay connected.
            before = {name: each["messageShare"] for name, each in (await quotas(*gateways)).items()}
            nats_server.kill()
            await until(lambda: not any(gateway.ready() for gateway in gateways), "NATS to be missed")
            await end_tasks(floods)
            shares = {name: each["messageShare"] for name, each in (await quotas(*gateways)).items()}
            assert sum(shares.values()) == pytest.approx(sum(before.values()), abs=2 * TOLERANCE)
            assert all(gateway.count("connections_closed", "mqtt") == 0 for gateway in gateways)


async def test_connections_count_over_all_workers(nats_server: NatsServer, cluster: Cluster) -> None:
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(GatewayProcess(nats_server.url, settings(name, 1, connections=2)))
            for name in ("one", "two")
        )
        async with AsyncExitStack() as connections:
            for number in range(2):
                peer = await connections.enter_async_context(mqtt_client(one.mqtt_port))
                await peer.send(Publish(f"kp1/app_v1/dcx/{number}/json", b"", 1, 1))
                await peer.expect(Puback)

            async def both_heard() -> bool:
                found = await quotas(two)
                return bool(found) and found["two"]["connectionsElsewhere"] == 2

            await eventually(both_heard, "the other gateway knows of them")
            third = await connections.enter_async_context(mqtt_client(two.mqtt_port))
            await third.send(Publish("kp1/app_v1/dcx/three/json/1", b"", 1, 1))
            packets = [await third.receive(), await third.receive()]
            (error,) = [each for each in packets if isinstance(each, Publish)]
            assert b"The tenant has too many connections" in error.payload
        await until(lambda: two.count("events", "refused", "tenant_connections") == 1, "it is counted")


async def test_silent_workers_are_forgotten_and_garbage_is_counted(
    nats_server: NatsServer, cluster: Cluster
) -> None:
    with GatewayProcess(nats_server.url, settings("one", 1, connections=5)) as gateway:
        async with await nats.connect(nats_server.url) as client:

            async def elsewhere() -> int:
                return int((await quotas(gateway))["one"]["connectionsElsewhere"])

            async def heard() -> bool:
                demands = QuotaDemands(replica="two", demands={f"tenant {TENANT}": Demand(0, 0, 7, 7)})
                await client.publish(subject_of("kpc"), msgspec.json.encode(demands))
                return await elsewhere() == 7

            await eventually(heard, "the other worker is heard")
            for garbage in (
                b"",
                b"{",
                b"\xff" * 100,
                b'{"replica":"two","demands":{"tenant acme":[-1,0,0,0]}}',
            ):
                await client.publish(subject_of("kpc"), garbage)
            await until(lambda: gateway.count("events", "dropped", "quota_demands_malformed") == 4, "garbage")

            async def forgotten() -> bool:
                return await elsewhere() == 0

            await eventually(forgotten, "its silence")
            # Those who leave are forgotten at once.
            await eventually(heard, "the other worker is heard")
            leaving = QuotaDemands(replica="two", demands={}, leaves=True)
            await client.publish(subject_of("kpc"), msgspec.json.encode(leaving))
            await eventually(forgotten, "its leaving")

            async def full() -> bool:
                for number in range(WORKERS_MAX + 10):
                    worker = QuotaDemands(replica=f"worker-{number}", demands={})
                    await client.publish(subject_of("kpc"), msgspec.json.encode(worker))
                await client.flush()
                return gateway.count("events", "dropped", "too_many_quota_workers") > 0

            await eventually(full, "the bound")
        assert "Traceback" not in gateway.log


async def test_the_month_is_counted_over_all_workers_and_restarts(
    nats_server: NatsServer, cluster: Cluster
) -> None:
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(
                GatewayProcess(nats_server.url, settings(name, 1, **{"messages-per-month": 10}))
            )
            for name in ("one", "two")
        )

        async def send(gateway: GatewayProcess, count: int) -> None:
            async with mqtt_client(gateway.mqtt_port) as peer:
                for number in range(1, count + 1):
                    await peer.send(Publish("kp1/app_v1/dcx/one/json", b"", 1, number))
                    while not isinstance(await peer.receive(), Puback):
                        pass

        async def left(gateway: GatewayProcess) -> int:
            (found,) = (await quotas(gateway)).values()
            return int(found["messagesLeftOfMonth"])

        async def known() -> bool:
            return await left(one) == 3 and await left(two) == 3

        await send(one, 4)
        await send(two, 3)
        await eventually(known, "each knows of the other's messages")
        two.restart()
        await eventually(known, "the count has outlived the process")
        await send(two, 5)
        assert two.count("events", "refused", "tenant_month") == 2
        assert len(cluster.requests) == 10

        async def counted() -> bool:
            return await left(one) == 0

        await eventually(counted, "all messages are in the bucket")
        # The count of a month that is over is not this month's.
        async with await nats.connect(nats_server.url) as client:
            month = json.dumps({"month": "2001-01", "messages": 10}).encode()
            await client.jetstream().publish(f"$KV.kpc-quotas.{key_of('tenant', TENANT)}", month)

        async def begun() -> bool:
            return await left(one) == await left(two) == 10

        await eventually(begun, "a new month")


async def test_the_month_of_an_endpoint_is_counted_over_all_workers_and_restarts(
    nats_server: NatsServer, cluster: Cluster
) -> None:
    limit = 100
    quota = {"kaa": {"applications": {"app": {"versions": {"app_v1": {
        "endpoint-quota": {"messages-per-month": limit}
    }}}}}}  # fmt: skip
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(GatewayProcess(nats_server.url, merged(settings(name, 1), quota)))
            for name in ("one", "two")
        )

        async def send(gateway: GatewayProcess, token: str, count: int) -> None:
            async with mqtt_client(gateway.mqtt_port) as peer:
                for number in range(1, count + 1):
                    await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"", 1, number))
                    while not isinstance(await peer.receive(), Puback):
                        pass

        async with await nats.connect(nats_server.url) as client:

            async def counts() -> dict[str, int]:
                bucket = await client.jetstream().key_value("kpc-quotas")
                found: dict[str, int] = {}
                for key in await bucket.keys():
                    entry = await bucket.get(key)
                    found |= json.loads(entry.value or b"")["messages"]
                return found

            async def counted(a: Callable[[], int], b: int) -> None:
                async def right() -> bool:
                    try:
                        return await counts() == ({"a": a(), "b": b} if b else {"a": a()})
                    except (nats.js.errors.NotFoundError, nats.js.errors.NoKeysError):
                        return False

                await eventually(right, "the messages of `a` and `b` are in the bucket")

            # The first messages of an endpoint, and each hundredth of its month, are counted at once.
            await send(one, "a", 50)
            await counted(lambda: 50, 0)
            await send(two, "b", 2)
            await send(two, "a", 30)
            await counted(lambda: 80, 2)
            two.restart()
            await send(two, "a", 2)
            await counted(lambda: 82, 2)

            # Both at once: what the two workers let through together is within 5 % of the limit.
            def passed() -> int:
                return sum(each.fields["endpointId"] == "a" for each in cluster.requests)

            def refused(gateway: GatewayProcess) -> float:
                return gateway.count("events", "refused", "endpoint_month")

            while not (refused(one) and refused(two)):
                await asyncio.gather(send(one, "a", 2), send(two, "a", 2))
                await counted(passed, 2)
            assert limit <= passed() <= limit * (1 + TOLERANCE)
            # Other endpoints are not affected.
            await send(one, "b", 1)
            await counted(passed, 3)
