"""What the soak does to a running cluster, one thing at a time; each returns when what it broke is whole again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from kaa_bench.soak.cluster import CORE, DURABLE, Cluster, end, held, start

DOWN_S = 0.5
HELD_S = 3.0
"""Longer than the gateway waits for NATS, so that it gives the connection up."""
SILENCE_S = 2.5
RESETS = 5
RESET_PERIOD_S = 0.3

Fault = Callable[[Cluster], Awaitable[None]]


async def extension_restarted(cluster: Cluster) -> None:
    """Replicas of the core extension, one after the other, by SIGTERM: they finish what they have."""
    for extension in cluster.extensions:
        if extension.instance == CORE:
            await end(extension, signal.SIGTERM)
            await start(extension)


async def extension_killed(cluster: Cluster) -> None:
    """The only replica of the durable extension."""
    for extension in cluster.extensions:
        if extension.instance == DURABLE:
            await end(extension, signal.SIGKILL)
            await asyncio.sleep(DOWN_S)
            await start(extension)


async def nats_network_reset(cluster: Cluster) -> None:
    """The connections between gateways and NATS, again and again."""
    for number in range(RESETS):
        cluster.nats_proxy.cut(reset=bool(number % 2))
        await asyncio.sleep(RESET_PERIOD_S)


async def nats_network_silent(cluster: Cluster) -> None:
    """Nothing passes between gateways and NATS, one way and then the other, and no connection ends."""
    for way in ("up", "down"):
        cluster.nats_proxy.pause(way)
        await asyncio.sleep(SILENCE_S)
        cluster.nats_proxy.cut()
        cluster.nats_proxy.resume()


async def device_network_reset(cluster: Cluster) -> None:
    """The TCP connections of devices, again and again."""
    for number in range(RESETS):
        for proxies in cluster.device_proxies.values():
            for proxy in proxies:
                proxy.cut(reset=bool(number % 2))
        await asyncio.sleep(RESET_PERIOD_S)


async def worker_killed(cluster: Cluster) -> None:
    """A gateway by SIGKILL; the other one goes on."""
    await end(cluster.gateways[0], signal.SIGKILL)
    await asyncio.sleep(DOWN_S)
    await start(cluster.gateways[0])


async def rolling_restart(cluster: Cluster) -> None:
    """All gateways, one after the other, by SIGTERM."""
    for gateway in cluster.gateways:
        await end(gateway, signal.SIGTERM)
        await start(gateway)


async def nats_stopped(cluster: Cluster) -> None:
    """The NATS server by SIGSTOP, for longer than a gateway waits, and then by SIGCONT."""
    await held(cluster.nats, HELD_S)


async def nats_killed(cluster: Cluster) -> None:
    """The NATS server by SIGKILL: what core NATS held in memory is gone."""
    await end(cluster.nats, signal.SIGKILL)
    await asyncio.sleep(DOWN_S)
    await start(cluster.nats)


FAULTS: tuple[Fault, ...] = (
    extension_restarted,
    nats_network_reset,
    worker_killed,
    nats_network_silent,
    extension_killed,
    device_network_reset,
    nats_stopped,
    rolling_restart,
)
"""All but the one that may cost messages of core NATS."""
