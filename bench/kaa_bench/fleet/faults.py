"""What is done to the gateways and NATS servers of a fleet soak."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.client import Client

from kaa_bench.errors import BenchError
from kaa_bench.fleet.cluster import FleetCluster, FleetGateway
from kaa_bench.fleet.names import WORKERS, replica_of

REQUEST_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 60.0
POLL_S = 0.5
FEW_PART = 50
"""A gateway is drained when it has this part of its clients: others roam to it all the time."""
NATS_AWAY_S = 2.0

Fault = Callable[[FleetCluster, Client, random.Random], Awaitable[None]]


async def worker_killed(cluster: FleetCluster, client: Client, choice: random.Random) -> None:
    """Kill a worker; its supervisor starts another one."""
    gateway = choice.choice(cluster.gateways)
    gateway.kill_worker(choice)
    await asyncio.sleep(1)
    await _serving(gateway)


async def gateway_killed(cluster: FleetCluster, client: Client, choice: random.Random) -> None:
    """Kill a gateway with its workers, and start it again."""
    gateway = choice.choice(cluster.gateways)
    await asyncio.to_thread(gateway.kill)
    await asyncio.to_thread(gateway.start)


async def gateway_restarted(cluster: FleetCluster, client: Client, choice: random.Random) -> None:
    """Stop a gateway with SIGTERM, as a rolling update does, and start it again."""
    await _restart(choice.choice(cluster.gateways))


async def gateway_drained(cluster: FleetCluster, client: Client, choice: random.Random) -> None:
    """Have the workers of a gateway send their clients away at a rate, then stop it and start it again."""
    gateway = choice.choice(cluster.gateways)
    workers = [f"{replica_of(gateway.number)}-{index}" for index in range(WORKERS)]
    few = 0
    for worker in workers:
        clients = (await _ask(client, worker, "GetStatus", {}))["clients"]
        few += clients // FEW_PART
        await _ask(client, worker, "Drain", {"rate": max(10, clients // 5)})
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while sum([(await _ask(client, worker, "GetStatus", {}))["clients"] for worker in workers]) > few:
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise BenchError(
            f"{replica_of(gateway.number)} still has clients {DRAIN_TIMEOUT_S:g} s after its drain"
        ) from None
    await _restart(gateway)


async def clients_rebalanced(cluster: FleetCluster, client: Client, choice: random.Random) -> None:
    """Have a worker send some of its clients to others."""
    worker = f"{replica_of(choice.choice(cluster.gateways).number)}-{choice.randrange(WORKERS)}"
    clients = (await _ask(client, worker, "GetStatus", {}))["clients"]
    await _ask(client, worker, "Shed", {"count": clients // 3, "rate": max(10, clients // 10)})


async def nats_server_killed(cluster: FleetCluster, client: Client, choice: random.Random) -> None:
    """Kill one of the NATS servers, and start it again."""
    server = choice.choice(cluster.nats)
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.to_thread(server.wait)
    await asyncio.sleep(NATS_AWAY_S)
    await asyncio.to_thread(server.start)


FAULTS: tuple[Fault, ...] = (
    worker_killed,
    gateway_drained,
    gateway_killed,
    clients_rebalanced,
    gateway_restarted,
    nats_server_killed,
)


async def _restart(gateway: FleetGateway) -> None:
    os.kill(gateway.pid, signal.SIGTERM)
    await asyncio.to_thread(gateway.wait)
    await asyncio.to_thread(gateway.start)


async def _serving(gateway: FleetGateway) -> None:
    async with asyncio.timeout(gateway.start_timeout):
        while not await asyncio.to_thread(gateway.is_ready):
            await asyncio.sleep(POLL_S)


async def _ask(client: Client, worker: str, kind: str, request: dict[str, object]) -> dict[str, int]:
    """Send a worker a request, as operators do."""
    subject = f"kaa.v1.replica.{worker}.gateway.{kind}"
    answer = await client.request(subject, msgspec.json.encode(request), REQUEST_TIMEOUT_S)
    return msgspec.json.decode(answer.data, type=dict)
