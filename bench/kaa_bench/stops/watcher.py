"""A device that sends one PINGREQ after the other, and notes how long the gateway took for the slowest answer.

It measures the CPU time that the gateway uses until the answer arrives. Wall time would also count the work of other
processes on the same core.
"""

import time
from multiprocessing.connection import Connection
from typing import NamedTuple

from kaa_bench import packets
from kaa_bench.compare.instruments import Instrument
from kaa_bench.connecting import Address, connect_mqtt
from kaa_bench.processes import cpu_seconds

PINGREQ = b"\xc0\x00"
PAUSE_S = 0.0002
"""Between an answer and the next request."""
DEVICE = 999_999


class Waits(NamedTuple):
    """The waits for PINGRESP since the last look."""

    answers: int
    longest_cpu_s: float
    longest_wall_s: float


class Watcher(Instrument):
    """The device, in a process of its own."""

    def __init__(self, address: Address, pid: int) -> None:
        super().__init__(_watch, address, pid)

    def look(self) -> Waits:
        """Return the waits since the last look."""
        waits: Waits = self._request()
        return waits


def _watch(pipe: Connection, address: Address, pid: int) -> None:
    count, cpu, wall = 0, 0.0, 0.0
    with connect_mqtt(address, DEVICE, packets.BENCH) as connection:
        connection.settimeout(None)
        pipe.send(None)
        while True:
            if pipe.poll():
                pipe.recv()
                pipe.send(Waits(count, cpu, wall))
                count, cpu, wall = 0, 0.0, 0.0
            cpu_before, before = cpu_seconds(pid), time.perf_counter()
            connection.sendall(PINGREQ)
            connection.recv(2)
            wall = max(wall, time.perf_counter() - before)
            cpu = max(cpu, cpu_seconds(pid) - cpu_before)
            count += 1
            time.sleep(PAUSE_S)
