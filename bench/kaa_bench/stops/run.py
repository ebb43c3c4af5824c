"""Runs the situations one after the other, and prints the longest wait of a bystander in each step."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from kaa_bench.compare.instruments import Sink
from kaa_bench.processes import NatsServer
from kaa_bench.stops.situations import WatchedGateway, situations
from kaa_bench.stops.watcher import Waits, Watcher

QUICK = 0.02
"""The part of everything that a quick run fills."""
GOAL_S = 0.02
"""A bystander should not wait for longer, in CPU time of the gateway."""


class Stop(NamedTuple):
    """A step of a situation, and the waits of the bystander meanwhile."""

    situation: str
    step: str
    waits: Waits


def run_stops(say: Callable[[str], None], *, quick: bool) -> list[Stop]:
    """Start a gateway and NATS, run all situations, and return their steps."""
    scale = QUICK if quick else 1.0
    stops: list[Stop] = []
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        stack.enter_context(Sink(nats.address, answers=False))
        gateway = stack.enter_context(WatchedGateway(nats))
        watcher = stack.enter_context(Watcher(gateway.address_of("mqtt"), gateway.pid))
        for situation in situations():
            say(situation.name)
            watcher.look()
            stops.extend(Stop(situation.name, step, watcher.look()) for step in situation.run(gateway, scale))
    return stops


def print_stops(stops: list[Stop], console: Console) -> None:
    """Print the table."""
    table = Table(title="Longest wait of a bystander", box=None, padding=(0, 1, 0, 0))
    table.add_column("situation")
    table.add_column("step")
    for column in ("ms CPU", "ms wall", "answers"):
        table.add_column(column, justify="right")
    before = ""
    for stop in stops:
        table.add_row(
            "" if stop.situation == before else stop.situation,
            stop.step,
            f"{stop.waits.longest_cpu_s * 1000:.1f}",
            f"{stop.waits.longest_wall_s * 1000:.1f}",
            f"{stop.waits.answers:,}",
        )
        before = stop.situation
    console.print(table)
