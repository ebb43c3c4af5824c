"""Writes the results of a comparison: JSON with every run, and the tables of docs/performance.md."""

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median

from kaa_bench.compare.comparison import Comparison
from kaa_bench.compare.measure import Run
from kaa_bench.compare.report import GATEWAY, NATS_DETAIL, TAIL_DETAILS, figure_remarks, number, remarks
from kaa_bench.errors import BenchError
from kaa_bench.peers.servers import Amqtt, Libcoap, Mosquitto
from kaa_bench.processes import nats_program

BEGIN = "<!-- figures of kaa-bench: begin -->"
END = "<!-- figures of kaa-bench: end -->"
VERSIONS = ("aiocoap", "aiohttp", "fastavro", "httptools", "nats-py", "uvloop")
VERSION = re.compile(r"\d+(?:\.\d+)+")
VERSION_TIMEOUT_S = 10.0


def write_json(results: Comparison, options: Mapping[str, object], path: Path) -> None:
    """Return every run with its raw counts and seconds, the options, the machine and the versions."""
    rows = [
        {
            "row": result.row.name,
            "gateway": [run_fields(run) for run in result.gateway],
            "peers": {
                peer: {"ratio": result.ratio(peer), "runs": [run_fields(run) for run in runs]}
                for peer, runs in result.peers.items()
            },
            "failures": result.failures,
        }
        for result in results.floods
    ]
    probes = [
        {
            "row": result.probe.name,
            "unit": result.probe.unit,
            "subjects": {
                title: {"ratio": result.ratio(title), "figures": [asdict(figure) for figure in figures]}
                for title, figures in result.figures.items()
            },
        }
        for result in results.probes
    ]
    document = {
        "machine": machine(),
        "versions": versions(),
        "options": options,
        "rows": rows,
        "probes": probes,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def run_fields(run: Run) -> dict[str, object]:
    """Return the fields of a run, and the values derived from them."""
    derived = {"rate": run.rate, "server_us": run.server_us, "remarks": run.remarks}
    return asdict(run) | derived | {"lost_of_acknowledged": run.lost_of_acknowledged}


def machine() -> dict[str, object]:
    """Return the properties of the machine that the figures depend on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load": os.getloadavg()[2],
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of all installed servers."""
    said = {
        "nats-server": _output_of(nats_program(), "--version"),
        "Mosquitto": _output_of(Mosquitto.program(), "-h"),
        "amqtt": _output_of(Amqtt.program(), "--version"),
        "libcoap": _package_of(Libcoap.program()),
    }
    found = {name: version[0] for name, text in said.items() if (version := VERSION.search(text))}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _output_of(program: str | None, *arguments: str) -> str:
    if program is None:
        return ""
    said = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=VERSION_TIMEOUT_S
    )
    return (said.stdout or said.stderr).strip()


def _package_of(program: str | None) -> str:
    """Return the version of the Debian package with the program, for programs that do not print theirs."""
    if program is None or shutil.which("dpkg-query") is None:
        return ""
    owner = _output_of("dpkg-query", "--search", program).partition(":")[0]
    if not owner:
        return ""
    return _output_of("dpkg-query", "--show", "--showformat=${Version}", owner)


def write_markdown(results: Comparison, command: str, path: Path) -> None:
    """Put the tables between the marks of a document. Raise BenchError if it has no marks."""
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise BenchError(f"{path} does not have the marks {BEGIN} and {END}, once each and in this order")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(markdown(results, command))
    path.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")


def markdown(results: Comparison, command: str) -> Iterator[str]:
    """Return the lines of the tables, with date, machine, versions and command above them."""
    of = machine()
    yield f"{datetime.now(UTC):%Y-%m-%d}; {of['cpu']}, {of['cores']} cores, Linux {of['kernel']},"
    yield f"load average {of['load']:.1f} in the last quarter of an hour."
    said = ", ".join(f"{name} {version}" for name, version in versions().items())
    yield f"Python {of['python']}, {said}; `{command}`."
    if results.floods:
        yield ""
        yield "CPU of the server in microseconds a message: median, and minimum to maximum of the rounds."
        yield ""
        yield "| work | server | CPU | min-max | ratio | rate/s | generator | NATS |"
        yield "|---|---|---|---|---|---|---|---|"
    for result in results.floods:
        for server, runs in result.servers.items():
            costs = [run.server_us for run in runs]
            ratio = result.ratio(server)
            nats = [run.nats_us for run in runs if run.nats_us is not None]
            cost = f"{median(costs):.2f}"
            yield _row(
                result.row.title if server == GATEWAY else "",
                server,
                f"**{cost}**" if server == GATEWAY else cost,
                f"{min(costs):.2f}-{max(costs):.2f}",
                "" if ratio is None else f"{ratio:.1f}",
                f"{median(run.rate for run in runs):,.0f}",
                f"{median(run.generator_us for run in runs):.2f}",
                f"{median(nats):.2f}" if nats else "",
            )
    if results.probes:
        yield ""
        yield _row("what", "who", "median", "min-max", "ratio to the first", *TAIL_DETAILS, "NATS")
        yield "|---|---|---|---|---|---|---|---|"
    for probe in results.probes:
        for index, (title, figures) in enumerate(probe.figures.items()):
            values = [figure.value for figure in figures]
            ratio, nats_us = probe.ratio(title), probe.detail(title, NATS_DETAIL)
            yield _row(
                f"{probe.probe.title} ({probe.probe.unit})" if index == 0 else "",
                title,
                number(median(values)),
                f"{number(min(values))}-{number(max(values))}",
                "" if ratio is None else f"{ratio:.1f}",
                *probe.tail(title),
                "" if nats_us is None else number(nats_us),
            )
    doubts = remarks(results.floods) + figure_remarks(results.probes)
    if doubts:
        yield ""
        yield from (f"- {doubt}" for doubt in doubts)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
