"""The faults of a soak. Each function causes one, and returns when the cluster has recovered."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from kaa_bench.processes import worker_processes
from kaa_bench.soak.cluster import CORE, DURABLE, Cluster, end, held, start

DOWN_S = 0.5
POLL_S = 0.1
HELD_S = 3.0
"""Longer than the gateway waits for NATS, so that it closes the connection."""
SILENCE_S = 2.5
RESETS = 5
RESET_PERIOD_S = 0.3

Fault = Callable[[Cluster], Awaitable[None]]


async def extension_restarted(cluster: Cluster) -> None:
    """Restart the replicas of the core extension, one after the other, by SIGTERM."""
    for extension in cluster.extensions:
        if extension.instance == CORE:
            await end(extension, signal.SIGTERM)
            await start(extension)


async def extension_killed(cluster: Cluster) -> None:
    """Kill the only replica of the durable extension."""
    for extension in cluster.extensions:
        if extension.instance == DURABLE:
            await end(extension, signal.SIGKILL)
            await asyncio.sleep(DOWN_S)
            await start(extension)


async def services_restarted(cluster: Cluster) -> None:
    """Restart the processes of the reference services, one after the other, by SIGTERM."""
    for services in cluster.services:
        await end(services, signal.SIGTERM)
        await start(services)


async def services_killed(cluster: Cluster) -> None:
    """Kill a process of the reference services; the other one continues."""
    await end(cluster.services[0], signal.SIGKILL)
    await asyncio.sleep(DOWN_S)
    await start(cluster.services[0])


async def services_worker_killed(cluster: Cluster) -> None:
    """Kill a worker of the reference services, if there are several; its supervisor starts another."""
    for services in cluster.services:
        if services.workers > 1:
            workers = worker_processes(services.pid)
            os.kill(workers[0], signal.SIGKILL)
            while len(found := worker_processes(services.pid)) < services.workers or workers[0] in found:
                await asyncio.sleep(POLL_S)


async def nats_network_reset(cluster: Cluster) -> None:
    """Cut the connections between gateways and NATS, several times."""
    for number in range(RESETS):
        cluster.nats_proxy.cut(reset=bool(number % 2))
        await asyncio.sleep(RESET_PERIOD_S)


async def nats_network_silent(cluster: Cluster) -> None:
    """Stop the traffic between gateways and NATS, in each direction in turn, without closing connections."""
    for way in ("up", "down"):
        cluster.nats_proxy.pause(way)
        await asyncio.sleep(SILENCE_S)
        cluster.nats_proxy.cut()
        cluster.nats_proxy.resume()


async def device_network_reset(cluster: Cluster) -> None:
    """Cut the TCP connections of devices, several times."""
    for number in range(RESETS):
        for proxies in cluster.device_proxies.values():
            for proxy in proxies:
                proxy.cut(reset=bool(number % 2))
        await asyncio.sleep(RESET_PERIOD_S)


async def worker_killed(cluster: Cluster) -> None:
    """Kill a gateway by SIGKILL; the other one continues."""
    await end(cluster.gateways[0], signal.SIGKILL)
    await asyncio.sleep(DOWN_S)
    await start(cluster.gateways[0])


async def rolling_restart(cluster: Cluster) -> None:
    """Restart all gateways, one after the other, by SIGTERM."""
    for gateway in cluster.gateways:
        await end(gateway, signal.SIGTERM)
        await start(gateway)


async def nats_stopped(cluster: Cluster) -> None:
    """Suspend the NATS server for longer than a gateway waits."""
    await held(cluster.nats, HELD_S)


async def nats_killed(cluster: Cluster) -> None:
    """Kill the NATS server by SIGKILL: the messages of core NATS in its memory are lost."""
    await end(cluster.nats, signal.SIGKILL)
    await asyncio.sleep(DOWN_S)
    await start(cluster.nats)


FAULTS: tuple[Fault, ...] = (
    extension_restarted,
    services_killed,
    nats_network_reset,
    worker_killed,
    nats_network_silent,
    extension_killed,
    device_network_reset,
    nats_stopped,
    services_restarted,
    rolling_restart,
)
"""All faults except the one that may lose messages of core NATS."""
OF_EXTENSIONS = (extension_restarted, extension_killed)
OF_SERVICES = (services_killed, services_worker_killed, services_restarted)
"""The faults that need the soak's own extensions, and those of the reference services."""


def faults_of(*, only_services: bool) -> tuple[Fault, ...]:
    """Return the faults that a soak causes in turn."""
    if not only_services:
        return FAULTS
    return (*OF_SERVICES, *(fault for fault in FAULTS if fault not in (*OF_SERVICES, *OF_EXTENSIONS)))
