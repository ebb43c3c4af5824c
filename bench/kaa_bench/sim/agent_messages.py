"""What `kaa-sim run --agents` and `kaa-sim agent` say to each other over NATS.

Subjects, of a group of agents:

- `kaa-sim.<group>.offer`: the controller looks for agents that are free; each answers with `Ready`.
- `kaa-sim.<group>.agent.<agent ID>`: the controller gives an agent its part of a run, `Part`; the answer is empty, or
  the reason why the agent cannot do it.
- `kaa-sim.<group>.run.<run ID>.report`: the reports of the agents, as `Reported`.
- `kaa-sim.<group>.run.<run ID>.control`: ALIVE every second, and STOP.

Reports are data only: nothing that arrives over NATS is unpickled.
"""

import zlib
from typing import Any

import msgspec

from kaa_bench.errors import BenchError
from kaa_bench.load.histogram import Histogram, restored
from kaa_bench.sim.process import Report
from kaa_bench.sim.tally import Tally

ALIVE = b"alive"
STOP = b"stop"
ALIVE_PERIOD_S = 1.0
SILENCE_MAX_S = 30.0
"""An agent stops, and a controller fails, when the other has been silent for this long."""
REPORT_SIZE_MAX = 1 << 26
"""Bytes of a report without compression."""


class Ready(msgspec.Struct):
    """An agent that is free."""

    agent: str
    host: str
    processes: int


class Part(msgspec.Struct):
    """A part of a run: the processes from `first` on, of `total`. The first device starts in `begin_in` seconds."""

    run: str
    scenario: str
    host: str | None
    ports: dict[str, int]
    first: int
    total: int
    begin_in: float


class Reported(msgspec.Struct):
    """Reports by the index of the process, or why the agent has failed."""

    agent: str
    reports: dict[str, Any] = {}
    error: str | None = None


def subject(group: str, *rest: str) -> str:
    """Return a subject of a group of agents."""
    return ".".join(("kaa-sim", group, *rest))


def packed(agent: str, reports: dict[int, Report], error: str | None = None) -> bytes:
    """Return reports as they are sent."""
    fields = {str(index): _fields(report) for index, report in reports.items()}
    return zlib.compress(msgspec.msgpack.encode(Reported(agent, fields, error)))


def unpacked(datum: bytes) -> tuple[str, dict[int, Report], str | None]:
    """Return the agent, its reports and its error. Raise BenchError for what is no report."""
    try:
        inflated = zlib.decompressobj().decompress(datum, REPORT_SIZE_MAX)
        found = msgspec.msgpack.decode(inflated, type=Reported)
        reports = {int(index): _report(fields) for index, fields in found.reports.items()}
    except (msgspec.MsgspecError, zlib.error, ValueError, TypeError, KeyError) as error:
        raise BenchError(f"an agent has sent what is no report: {error}") from None
    return found.agent, reports, found.error


def _fields(report: Report) -> dict[str, Any]:
    return {
        "tallies": {name: _counts(tally) for name, tally in report.tallies.items()},
        "recent": {name: histogram.parts() for name, histogram in report.recent.items()},
        "cpu_seconds": report.cpu_seconds,
        "final": report.final,
    }


def _report(fields: dict[str, Any]) -> Report:
    return Report(
        {name: _tally(counts) for name, counts in fields["tallies"].items()},
        {name: restored(*parts) for name, parts in fields["recent"].items()},
        float(fields["cpu_seconds"]),
        bool(fields["final"]),
    )


def _counts(tally: Tally) -> dict[str, Any]:
    """Return the fields of a tally, histograms as their parts."""
    return {
        name: value.parts() if isinstance(value, Histogram) else value for name, value in vars(tally).items()
    }


def _tally(counts: dict[str, Any]) -> Tally:
    tally = Tally()
    for name, value in vars(tally).items():
        found = counts[name]
        if isinstance(value, Histogram):
            setattr(tally, name, restored(*found))
        elif isinstance(value, int):
            setattr(tally, name, int(found))
        else:
            value.update({str(kind): int(count) for kind, count in found.items()})
    return tally
