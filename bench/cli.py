"""The command line of the bench: options, rounds, exit status."""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from bench.errors import BenchError
from bench.measure import Run, Work, measure_gateway, measure_peer
from bench.peers.servers import PEERS, Peer
from bench.processes import Gateway, NatsServer
from bench.report import GATEWAY, RowResult, print_table, progress_line, write_json
from bench.rows import ROWS

RowName = Literal["qos0", "qos1", "qos1-many", "http", "coap", "kpudp"]
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

app = App(name="python -m bench", help_format="markdown", version_flags=[])


@app.default
def bench(
    *,
    rows: Annotated[list[RowName] | None, Parameter(consume_multiple=True, negative="")] = None,
    rounds: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 4.0,
    messages: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    gateway_only: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[Path | None, Parameter(negative="")] = None,
) -> int:
    """Flood the gateway and print what a message costs it, beside other servers under the same work.

    Starts its own nats-server, gateway and, where installed, its peers: Mosquitto, and the CoAP servers of
    libcoap and aiocoap, on free loopback ports. A native load generator and a native NATS sink run in their
    own processes. Each round runs every row on the gateway, then on the peers that can do it. Cost is the CPU
    time of the server's process per message, user and system; rates depend on how the machine's cores are
    shared, CPU per message far less. Nothing else should be running.

    The rows, in full in docs/performance.md:

    - `qos0`: MQTT QoS 0, pipelined on 8 connections
    - `qos1`: MQTT QoS 1, 64 unacknowledged on each of 8 connections
    - `qos1-many`: MQTT QoS 1, one unacknowledged on each of 1000 connections
    - `http`: HTTP POST, one outstanding on each of 64 keep-alive connections, answered by the sink
    - `coap`: CoAP CON POST, one outstanding on each of 64 sockets, answered by the sink
    - `kpudp`: KP/UDP confirmed data by path alias, 32 unacknowledged on each of 64 sockets

    Exit status 1 if an acknowledged message did not reach the extension, or anything else failed.

    Parameters
    ----------
    rows
        Which rows to run, all by default: `--rows qos0 http`.
    rounds
        How often each row is run; the table shows median, minimum and maximum.
    seconds
        How long one run sends, after a short warm-up that is not measured.
    messages
        How many messages one run sends, instead of `--seconds`.
    gateway_only
        Do not measure the peers.
    json
        Also write every run to this file.
    """
    work = Work(messages=messages) if messages is not None else Work(seconds=seconds)
    results = [RowResult(ROWS[name]) for name in dict.fromkeys(rows or ROWS)]
    progress = Console(stderr=True, highlight=False)
    try:
        run_rounds(results, rounds, work, gateway_only, progress)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    print_table(results, Console())
    if json is not None:
        options = {"rounds": rounds, "messages": work.messages, "seconds": work.seconds}
        write_json(results, options, json)
    runs = [run for result in results for run in result.gateway]
    lost = sum(run.lost_of_acknowledged for run in runs)
    print(f"lost of acknowledged: {lost} of {sum(run.acknowledged for run in runs):,}")
    return EXIT_FAILED if lost or any(run.errors for run in runs) else 0


def run_rounds(
    results: list[RowResult], rounds: int, work: Work, gateway_only: bool, progress: Console
) -> None:
    """Fill the results; the servers stay up over all rounds."""
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        gateway = stack.enter_context(Gateway(nats))
        peers = [] if gateway_only else start_peers(results, stack, progress)
        for number in range(1, rounds + 1):
            position = f"round {number}/{rounds}"
            for result in results:
                with progress.status(f"{position}  {result.row.title}"):
                    run = measure_gateway(result.row, gateway, nats, work)
                    result.gateway.append(run)
                    report(progress, position, result, GATEWAY, run)
                    for peer in peers:
                        if peer.protocol == result.row.load.protocol:
                            run = measure_peer(result.row, peer, work)
                            result.peers.setdefault(peer.title, []).append(run)
                            report(progress, position, result, peer.title, run)


def start_peers(results: list[RowResult], stack: ExitStack, progress: Console) -> list[Peer]:
    """Start the peers that can do some of the work; say which of them are not installed."""
    protocols = {result.row.load.protocol for result in results}
    peers = []
    for kind in PEERS:
        if kind.protocol not in protocols:
            continue
        if kind.program() is None:
            progress.print(f"{kind.title} is not installed: the gateway is measured without it", style="bold")
        else:
            peers.append(stack.enter_context(kind()))
    return peers


def report(progress: Console, position: str, result: RowResult, server: str, run: Run) -> None:
    """Print one finished run."""
    progress.print(progress_line(position, result.row, server, run), soft_wrap=True)


def main() -> None:
    """Entry point."""
    # The servers are stopped on the way out, so SIGTERM takes the way of Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(app())
