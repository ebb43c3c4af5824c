"""Runs a native load on a running server, and prints its result: the work of `kaa-sim load`.

The generator is native and has its own process. It first runs against a discard server to measure its own limit: a rate
near that limit depends on the generator more than on the server.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.table import Table

from kaa_bench.compare.instruments import Discard, LoadGenerator, Progress
from kaa_bench.connecting import Address, LoadSpec, Protocol
from kaa_bench.errors import BenchError
from kaa_bench.load.histogram import Histogram
from kaa_bench.load.loop import RunResult
from kaa_bench.packets import PAYLOAD
from kaa_bench.processes import cpu_seconds, process_tree
from kaa_bench.sim.identities import listed
from kaa_bench.sim.payloads import content_of
from kaa_bench.sim.sessions import SessionError
from kaa_bench.sim.sessions.mqtt import MqttSession

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)
SATURATED = 0.9
"""CPU cores; the generator has one thread."""
LATE_MAX = 0.01
"""The share of messages that the generator may send too late before a paced run is doubtful."""
CALIBRATION_S = 0.5
LINE_PERIOD_S = 9.5
"""Seconds between two lines of progress where there is no terminal."""
REFUSAL_TIMEOUT_S = 5.0
ERROR_AFTER_S = 0.5
"""How long after the acknowledgement of a message an error may arrive."""
WARM_UP_S = 0.3
MICROSECONDS = 1e6


@dataclass(frozen=True)
class LoadReport:
    """The result of a load. Rates are messages a second; costs are CPU microseconds per message."""

    protocol: str
    sent: int
    acknowledged: int
    planned: int
    seconds: float
    rate: float
    generator_us: float
    generator_limit: float | None
    server_us: float | None
    late: int
    held: int
    retransmitted: int
    errors: dict[str, int]
    latency_us: dict[str, float]

    @property
    def remarks(self) -> list[str]:
        """Return remarks on the reliability of the figures."""
        remarks = [f"{count} x {kind}" for kind, count in self.errors.items()]
        if self.generator_us * self.rate > SATURATED * MICROSECONDS:
            remarks.append(
                "generator saturated: it used a whole core, and the server may take more than this"
            )
        if self.late > LATE_MAX * self.planned:
            remarks.append(
                f"generator saturated: it was over a millisecond late with {self.late} of {self.planned} messages, and "
                "latencies contain that"
            )
        if self.held:
            remarks.append(
                f"{self.held} of {self.planned} messages waited for the window: the server was slower"
            )
        if self.planned > self.sent:
            remarks.append(
                f"{self.planned - self.sent} of {self.planned} messages could not be sent, even in overtime"
            )
        if self.retransmitted:
            remarks.append(f"{self.retransmitted} retransmitted")
        return remarks


def run_load(
    spec: LoadSpec,
    address: Address,
    *,
    messages: int | None,
    seconds: float | None,
    rate: float,
    server: int | None,
    show: Callable[[Progress], None] | None = None,
) -> LoadReport:
    """Calibrate if the load is over bare TCP or UDP; connect, warm up and send.

    `server` is the process ID of a server on this machine, for its CPU. `show` is called every second of the run.
    """
    limit = generator_limit(spec) if spec.carrier == "tcp" else None
    with LoadGenerator(spec, address) as generator:
        warm_up = generator.run(seconds=WARM_UP_S, rate=rate)
        if warm_up.errors:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in warm_up.errors.items())
            if spec.protocol == "mqtt" and (reason := asyncio.run(refusal(spec, address))) is not None:
                kinds = f"the gateway refuses messages to {spec.profile.resource_path(0)}: {reason}"
            raise BenchError(f"the warm-up failed: {kinds}")
        before = _cpu(server)
        result = generator.run(messages=messages, seconds=seconds, rate=rate, show=show)
        used = _cpu(server) - before
    if not result.sent:
        raise BenchError("the load generator sent nothing")
    return LoadReport(
        protocol=spec.protocol,
        sent=result.sent,
        acknowledged=result.acknowledged,
        planned=result.planned,
        seconds=result.seconds,
        rate=result.sent / result.seconds,
        generator_us=result.cpu_seconds / result.sent * MICROSECONDS,
        generator_limit=limit,
        server_us=None if server is None else used / result.sent * MICROSECONDS,
        late=result.late,
        held=result.held,
        retransmitted=result.retransmitted,
        errors=result.errors,
        latency_us=latency_us(result.latency),
    )


async def refusal(spec: LoadSpec, address: Address) -> str | None:
    """Send a message as an MQTT device of the load, and return why it is refused; None if it is not."""
    host, port = address
    profile = spec.profile
    session = MqttSession(
        host,
        port,
        profile.token(0),
        qos=1,
        answers=spec.answered,
        timeout=REFUSAL_TIMEOUT_S,
        pushed=lambda path, payload: None,
        user=profile.user,
        password=profile.password,
        tls=spec.tls.context(0) if spec.tls is not None else None,
        websocket=spec.websocket,
        version=spec.mqtt_version,
    )
    try:
        await session.connect()
        await session.send(profile.resource_path(0), profile.payload)
        # An error without request ID may follow the PUBACK.
        await asyncio.sleep(ERROR_AFTER_S)
        return session.last_error
    except SessionError as error:
        return error.kind
    finally:
        await session.close()


def generator_limit(spec: LoadSpec) -> float:
    """Return the messages per second of CPU that the generator can send to a discard server."""
    spec = replace(spec, sources=())
    if spec.answered or spec.protocol == "nats":
        spec = LoadSpec("mqtt", spec.connections, qos=1, window=spec.window, profile=spec.profile)
    protocol: Protocol = "mqtt" if spec.protocol == "nats" or spec.protocol == "coap-tcp" else spec.protocol
    with Discard(protocol) as discard, LoadGenerator(spec, discard.address) as generator:
        result: RunResult = generator.run(seconds=CALIBRATION_S)
    return result.sent / result.cpu_seconds


def latency_us(latency: Histogram | None) -> dict[str, float]:
    """Return the latency in microseconds by percentile."""
    if latency is None or not latency.total:
        return {}
    return {f"{percent:g}": latency.percentile(percent) / 1000 for percent in PERCENTILES}


def payload_of(text: str | None, file: Path | None) -> bytes:
    """Return the payload of a load: a text, the content of a file, or a sample."""
    if text is not None and file is not None:
        raise BenchError("either --payload or --payload-file is given")
    if file is not None:
        return content_of(str(file))
    return PAYLOAD if text is None else text.encode()


def tokens_of(file: Path | None, connections: int) -> tuple[str, ...]:
    """Return the tokens in a CSV file, none without a file."""
    if file is None:
        return ()
    tokens = tuple(identity.token for identity in listed(file, connections))
    if len({len(token.encode()) for token in tokens}) > 1:
        raise BenchError(f"{file}: the tokens of a load have one length")
    return tokens


def _cpu(server: int | None) -> float:
    return 0.0 if server is None else sum(map(cpu_seconds, process_tree(server)))


class ProgressView:
    """Shows the progress of a run: a line that changes on a terminal, else a line from time to time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("connecting") if console.is_terminal else None
        self._last = Progress(0.0, 0, 0)
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, progress: Progress) -> None:
        """Show how far the run is, with the rate since the last call."""
        rate = (progress.sent - self._last.sent) / max(progress.seconds - self._last.seconds, 1e-3)
        self._last = progress
        counts = f"{progress.sent:,} sent  {progress.acknowledged:,} acknowledged"
        line = f"{progress.seconds:6.0f} s  {counts}  {rate:,.0f}/s"
        if self._status is not None:
            self._status.update(line)
        elif progress.seconds >= self._next_line:
            self._next_line = progress.seconds + LINE_PERIOD_S
            self._console.print(line, highlight=False, soft_wrap=True)


def print_report(report: LoadReport, console: Console) -> None:
    """Print figures, percentiles and remarks."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("sent", f"{report.sent:,}")
    table.add_row("acknowledged", f"{report.acknowledged:,}")
    table.add_row("seconds", f"{report.seconds:.2f}")
    table.add_row("rate", f"{report.rate:,.0f}/s")
    table.add_row("CPU of the generator", f"{report.generator_us:.2f} us a message")
    if report.generator_limit is not None:
        table.add_row("its own limit", f"{report.generator_limit:,.0f}/s of one core")
    if report.server_us is not None:
        table.add_row("CPU of the server", f"{report.server_us:.2f} us a message")
    for percent, value in report.latency_us.items():
        table.add_row(f"latency {percent} %", f"{value:,.0f} us")
    console.print(table)
    for remark in report.remarks:
        console.print(remark, style="bold", highlight=False, soft_wrap=True)


def write_json(report: LoadReport, path: Path) -> None:
    """Write the figures as a JSON object."""
    path.write_text(json.dumps(asdict(report) | {"remarks": report.remarks}, indent=2) + "\n")
