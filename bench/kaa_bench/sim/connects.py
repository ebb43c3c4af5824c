"""Opens MQTT connections at a fixed rate, and measures how long each takes: the work of `kaa-sim connect`.

A connection has a time at which it is due, and its latency counts from then to CONNACK: TCP, TLS, WebSocket and MQTT.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kaa_bench.load.histogram import Histogram
from kaa_bench.sim.device import make_session
from kaa_bench.sim.identities import Identities
from kaa_bench.sim.load import latency_us
from kaa_bench.sim.scenario import Fleet, Target
from kaa_bench.sim.sessions import SessionError

LATE_S = 0.1
LATE_MAX = 0.01
"""The share of connections that may begin this much too late before the figures are those of the simulator."""
NANOSECONDS = 1e9


@dataclass
class Connects:
    """The result: connections tried and made, errors by kind, and latencies."""

    planned: int
    connected: int = 0
    late: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)

    def document(self) -> dict[str, object]:
        """Return the result as JSON."""
        return {
            "planned": self.planned,
            "connected": self.connected,
            "late": self.late,
            "seconds": round(self.seconds, 3),
            "rate": self.connected / self.seconds if self.seconds else 0.0,
            "errors": dict(self.errors),
            "latency_us": latency_us(self.latency),
        }


async def run_connects(fleet: Fleet, target: Target, rate: float, hold_s: float) -> Connects:
    """Open a connection for each device of a fleet, and close them `hold_s` seconds after the last one."""
    identities = Identities(fleet, target)
    result = Connects(fleet.devices)
    sessions = [
        make_session(
            fleet, target, identities.of(number), _ignored, identities.tls(number), identities.source(number)
        )
        for number in range(fleet.devices)
    ]
    start = time.monotonic()

    async def connect(number: int) -> None:
        due = start + number / rate
        await asyncio.sleep(due - time.monotonic())
        result.late += time.monotonic() - due > LATE_S
        try:
            await sessions[number].connect()
        except SessionError as error:
            result.errors[error.kind] += 1
        else:
            result.connected += 1
            result.latency.record(int((time.monotonic() - due) * NANOSECONDS))

    await asyncio.gather(*map(connect, range(fleet.devices)))
    result.seconds = time.monotonic() - start
    await asyncio.sleep(hold_s)
    await asyncio.gather(*(session.close() for session in sessions))
    return result


def _ignored(path: str, payload: bytes) -> None:
    """Take a push, which nobody has asked for."""


def print_connects(result: Connects, console: Console) -> None:
    """Print the figures, percentiles and remarks."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("connected", f"{result.connected:,} of {result.planned:,}")
    table.add_row("seconds", f"{result.seconds:.2f}")
    if result.seconds:
        table.add_row("rate", f"{result.connected / result.seconds:,.0f}/s")
    for percent, value in latency_us(result.latency).items():
        table.add_row(f"latency {percent} %", f"{value:,.0f} us")
    console.print(table)
    for kind, count in result.errors.most_common():
        console.print(f"{count} x {kind}", style="bold", highlight=False, soft_wrap=True)
    if result.late > LATE_MAX * result.planned:
        console.print(
            f"simulator saturated: {result.late} of {result.planned} connections began late", style="bold"
        )


def write_connects(result: Connects, path: Path) -> None:
    """Write the figures as a JSON object."""
    path.write_text(json.dumps(result.document(), indent=2) + "\n", encoding="utf-8")
