"""Opens idle MQTT connections to a gateway of its own, and measures memory, CPU, a lost NATS and a drain."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kaa_bench.capacity.holder import Holder
from kaa_bench.errors import BenchError
from kaa_bench.packets import APP_VERSION, EXTENSION, Profile
from kaa_bench.processes import Gateway, NatsServer, cpu_seconds, is_ready, process_tree

KEEP_ALIVE_S = 300
NATS_AWAY_S = 10.0
READY_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 600.0
POLL_S = 0.05


@dataclass
class Capacity:
    """The result. Memory is private, in bytes; CPU is in seconds of one core."""

    connections: int
    workers: int
    encrypted: bool
    connect_s: float = 0.0
    connect_cpu: float = 0.0
    gateway_memory_before: int = 0
    gateway_memory: int = 0
    nats_memory: int = 0
    clients_memory: int = 0
    machine_memory: int = 0
    """Bytes by which the machine's available memory has fallen, for all of this: gateway, clients, kernel."""
    idle_s: float = 0.0
    idle_cpu: float = 0.0
    idle_nats_cpu: float = 0.0
    open_after_idle: int = 0
    away_cpu: float = 0.0
    ready_s: float = 0.0
    """Seconds from the start of NATS to a gateway that is ready."""
    open_after_nats: int = 0
    drain_s: float = 0.0
    drain_cpu: float = 0.0
    open_after_drain: int = 0

    @property
    def bytes_a_connection(self) -> float:
        """Return the gateway's memory for a connection."""
        return (self.gateway_memory - self.gateway_memory_before) / self.connections


class LargeGateway(Gateway):
    """A gateway that accepts any number of connections."""

    def configuration(self) -> dict[str, object]:
        """See `Gateway.configuration`."""
        document = super().configuration()
        kaa = document["kaa"]
        assert isinstance(kaa, dict)
        kaa["kpc"]["limits"] = {"connections": 1_000_000}
        return document


def run_capacity(
    connections: int,
    *,
    workers: int,
    processes: int,
    idle_s: float,
    encrypted: bool,
    say: Callable[[str], None],
) -> Capacity:
    """Run all phases. Raise BenchError if something does not come about."""
    found = Capacity(connections, workers, encrypted)
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        gateway = stack.enter_context(LargeGateway(nats, workers))
        address = gateway.carriers["tls" if encrypted else "tcp"]
        holders = []
        for number in range(processes):
            profile = Profile(APP_VERSION, EXTENSION, f"idle-{number}-", b"")
            source = f"127.0.1.{number + 1}"
            holder = Holder(address, source, profile, KEEP_ALIVE_S, encrypted=encrypted)
            holders.append(stack.enter_context(holder))
        pool = stack.enter_context(ThreadPoolExecutor(processes))

        def count_open() -> int:
            return sum(pool.map(Holder.open_connections, holders))

        found.gateway_memory_before = gateway.memory()
        available = _available_memory()
        cpu, began = gateway.cpu_seconds(), time.monotonic()
        shares = [
            connections // processes + (number < connections % processes) for number in range(processes)
        ]
        list(pool.map(Holder.connect, holders, shares))
        found.connect_s = time.monotonic() - began
        found.connect_cpu = gateway.cpu_seconds() - cpu
        found.gateway_memory = gateway.memory()
        found.nats_memory = nats.memory()
        found.clients_memory = sum(holder.memory() for holder in holders)
        found.machine_memory = available - _available_memory()
        say(f"{count_open():,} connections are open")

        cpu, nats_cpu = gateway.cpu_seconds(), nats.cpu_seconds()
        began = time.monotonic()
        time.sleep(idle_s)
        found.idle_s = time.monotonic() - began
        found.idle_cpu, found.idle_nats_cpu = gateway.cpu_seconds() - cpu, nats.cpu_seconds() - nats_cpu
        found.open_after_idle = count_open()
        say(f"{found.open_after_idle:,} connections are open after {found.idle_s:.0f} s; NATS is killed")

        cpu = gateway.cpu_seconds()
        os.kill(nats.pid, signal.SIGKILL)
        nats.wait()
        time.sleep(NATS_AWAY_S)
        found.away_cpu = gateway.cpu_seconds() - cpu
        nats.start()
        began = time.monotonic()
        _until(partial(is_ready, gateway.management_port), READY_TIMEOUT_S, "the gateway is ready again")
        found.ready_s = time.monotonic() - began
        found.open_after_nats = count_open()
        say(f"{found.open_after_nats:,} connections are open after NATS is back; the gateway gets SIGTERM")

        tree = process_tree(gateway.pid)
        used = dict.fromkeys(tree, 0.0)
        start = {pid: cpu_seconds(pid) for pid in tree}
        began = time.monotonic()
        os.kill(gateway.pid, signal.SIGTERM)

        def ended() -> bool:
            for pid in tree:
                try:
                    used[pid] = cpu_seconds(pid) - start[pid]
                except BenchError:
                    continue
            return gateway.has_ended()

        _until(ended, DRAIN_TIMEOUT_S, "the gateway has ended")
        found.drain_s, found.drain_cpu = time.monotonic() - began, sum(used.values())
        found.open_after_drain = count_open()
    return found


def _until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"waited {timeout_s:g} s until {what}")
        time.sleep(POLL_S)


def _available_memory() -> int:
    """Return the bytes that the machine could give to processes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise BenchError("/proc/meminfo does not say MemAvailable")
