"""Prints what a run of `kaa-bench capacity` has found."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kaa_bench.capacity.run import NATS_AWAY_S, Capacity

MIB = 1 << 20
MINUTE_S = 60


def print_capacity(found: Capacity, console: Console) -> None:
    """Print a table."""
    minutes = found.idle_s / MINUTE_S
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    carrier = "MQTT over TLS" if found.encrypted else "MQTT"
    for name, value in (
        ("connections", f"{found.connections:,} of {carrier}, {found.workers} workers"),
        ("time to accept all", f"{found.connect_s:.1f} s"),
        ("CPU of the gateway for that", f"{found.connect_cpu:.2f} s"),
        ("memory of the gateway", f"{found.gateway_memory / MIB:,.0f} MiB"),
        ("before the first connection", f"{found.gateway_memory_before / MIB:,.0f} MiB"),
        ("a connection", f"{found.bytes_a_connection:,.0f} bytes"),
        ("memory of NATS", f"{found.nats_memory / MIB:,.0f} MiB"),
        ("memory of the clients", f"{found.clients_memory / MIB:,.0f} MiB"),
        ("of the machine, for all of it", f"{found.machine_memory / MIB:,.0f} MiB"),
        ("CPU of the gateway a minute", f"{found.idle_cpu / minutes:.2f} s"),
        ("CPU of NATS a minute", f"{found.idle_nats_cpu / minutes:.2f} s"),
        ("open after the idle time", f"{found.open_after_idle:,}"),
        (f"CPU of the gateway in {NATS_AWAY_S:g} s without NATS", f"{found.away_cpu:.2f} s"),
        ("ready again after", f"{found.ready_s:.2f} s"),
        ("open after that", f"{found.open_after_nats:,}"),
        ("time to drain at SIGTERM", f"{found.drain_s:.2f} s"),
        ("CPU of the gateway for that", f"{found.drain_cpu:.2f} s"),
        ("open after that", f"{found.open_after_drain:,}"),
    ):
        table.add_row(name, value)
    console.print(table)


def write_capacity(found: Capacity, path: Path) -> None:
    """Write the figures as a JSON object."""
    path.write_text(json.dumps(asdict(found), indent=2) + "\n")
