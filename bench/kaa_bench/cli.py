"""`kaa-bench`: the command line of the comparison, the soak and the recorded counts.

A command imports what it needs when it runs.
"""

import asyncio
import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number
from kaa_gateway import __version__, stdio
from kaa_gateway.completion import add_completion
from rich.console import Console

from kaa_bench.errors import BenchError
from kaa_bench.extras import require_clients

RowName = Literal[
    "qos0", "qos1", "qos0-v5", "qos0-v5-alias", "qos1-v5", "qos1-v5-alias", "qos1-many", "qos0-tls", "qos1-many-tls",
    "qos1-websocket", "qos1-durable", "http", "coap", "coap-tcp", "plugin", "mqtt-sn", "kpudp", "kpudp-secure",
    "encode", "decode", "publish", "connect",
    "disconnect", "connect-authenticated",
    "memory", "connect-tls", "resume-tls", "memory-tls", "latency-100", "latency-1000", "latency-5000",
    "latency-20000", "tail-mqtt", "tail-http", "tail-coap", "lone", "push", "bridge", "workers",
    "ext-echo", "ext-tsx", "ext-dcx", "ext-dcx-series", "ext-epmx-get",
    "ext-epmx-update", "ext-epmx-remote-get", "ext-epmx-remote-update", "ext-cmx", "ext-durable", "ext-cex", "stored",
]  # fmt: skip
SEEDS = 1_000_000
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

app = App(name="kaa-bench", help_format="markdown", version=__version__)
add_completion(app)


@app.command
def compare(
    *,
    rows: Annotated[list[RowName] | None, Parameter(consume_multiple=True, negative="")] = None,
    rounds: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 4.0,
    messages: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    gateway_only: Annotated[bool, Parameter(negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[Path | None, Parameter(negative="")] = None,
    plots: Annotated[Path | None, Parameter(negative="")] = None,
    markdown: Annotated[Path | None, Parameter(negative="")] = None,
) -> int:
    """Give the gateway and its peers the same work, and print the cost for each of them.

    Starts its own nats-server, gateway and, if they are installed, peers, on free loopback ports. A native load
    generator and a native NATS sink run in their own processes. Each round runs every row on the gateway, then on the
    peers that support it. Cost is the CPU time of the server's process per message, user and system. Rates depend on
    how the machine's cores are shared; CPU per message depends on that far less. Nothing else should be running.

    The rows (docs/performance.md describes them in full):

    - `qos0`: MQTT QoS 0, pipelined on 8 connections
    - `qos1`: MQTT QoS 1, 64 unacknowledged on each of 8 connections
    - `qos0-v5`, `qos1-v5`: the same with MQTT 5, beside peers that speak it and nats-server's MQTT 3.1.1
    - `qos0-v5-alias`, `qos1-v5-alias`: the same with a topic alias in place of the topic
    - `qos1-many`: MQTT QoS 1, one unacknowledged on each of 1000 connections
    - `qos0-tls`, `qos1-many-tls`: `qos0` and `qos1-many` over TLS
    - `qos1-websocket`: `qos1` over WebSocket
    - `qos1-durable`: MQTT QoS 1 likewise, acknowledged when a JetStream stream has stored it
    - `http`: HTTP POST, one outstanding on each of 64 keep-alive connections, answered by the sink
    - `coap`: CoAP CON POST, one outstanding on each of 64 sockets, answered by the sink
    - `coap-tcp`: CoAP POST over TCP, one outstanding on each of 64 connections, answered by the sink
    - `plugin`: MQTT QoS 1 as in `qos1`, by a plug-in in Python
    - `mqtt-sn`: MQTT-SN QoS 1 by registered topic, 8 unacknowledged on each of 64 sockets
    - `kpudp`: KP/UDP confirmed data by path alias, 32 unacknowledged on each of 64 sockets
    - `kpudp-secure`: the same, encrypted
    - `encode`, `decode`, `publish`: one ClientData, one ExtensionData, one NATS publication
    - `connect`, `disconnect`, `memory`: the cost of an MQTT connection
    - `connect-authenticated`: the same with a user name and password that the gateway remembers
    - `connect-tls`, `resume-tls`, `memory-tls`: the same over TLS, with a full handshake and with a resumed session
    - `latency-100` to `latency-20000`: device to extension and back, at that many requests a second
    - `tail-mqtt`, `tail-http`, `tail-coap`: the slowest of these at half of the rate that the gateway can carry
    - `lone`: one MQTT QoS 1 message every 10 ms, on a server that does nothing else
    - `push`: from NATS to an MQTT device
    - `bridge`: MQTT QoS 1 from Mosquitto to NATS, by `kaa-gateway bridge` and by a minimal forwarder
    - `workers`: two workers, compared with one
    - `ext-echo`: an extension service that answers with the payload
    - `ext-tsx`, `ext-dcx`, `ext-epmx-get`, `ext-epmx-update`, `ext-cmx`, `ext-cex`: the reference services
    - `ext-dcx-series`: `ext-dcx` with auto-extraction; `ext-epmx-remote-get`, `ext-epmx-remote-update`: metadata of
      another repository
    - `ext-durable`: an extension that takes its requests from a stream
    - `stored`: from a device to a stored sample, the CPU of all servers

    The exit status is 1 if an acknowledged message did not reach the extension, or anything else failed.

    Parameters
    ----------
    rows
        Rows to run, such as `--rows qos0 http` (default: all).
    rounds
        Number of runs of each row; the table shows median, minimum and maximum.
    seconds
        Duration of a run, after a short warm-up that is not measured.
    messages
        Messages of a run of the rows up to `kpudp`, instead of `--seconds`.
    gateway_only
        Do not measure the peers.
    quick
        One round of everything with little work, to check that all of it runs. Its figures mean nothing.
    json
        Also write every run to this file.
    plots
        Also write SVG plots into this directory.
    markdown
        Also write the tables into this file, between the marks as in docs/performance.md.
    """
    from kaa_bench.compare.comparison import Comparison, run_rounds
    from kaa_bench.compare.documents import write_json, write_markdown
    from kaa_bench.compare.figures import Scale
    from kaa_bench.compare.measure import Work
    from kaa_bench.compare.plots import write_plots
    from kaa_bench.compare.report import print_figures, print_table
    from kaa_bench.compare.servers import Servers

    scale = Scale.quick() if quick else Scale(seconds=seconds)
    rounds = 1 if quick else rounds
    work = Work(messages=messages) if messages is not None else Work(seconds=scale.seconds)
    results = Comparison.of(rows)
    options = {"rounds": rounds, "messages": work.messages, "seconds": work.seconds, "quick": quick}

    def save() -> None:
        if json is not None:
            write_json(results, options, json)

    progress = Console(stderr=True, highlight=False)
    try:
        with ExitStack() as stack:
            servers = Servers(stack, progress, gateway_only=gateway_only)
            run_rounds(results, rounds, work, scale, servers, progress, save)
        console = Console()
        if results.floods:
            print_table(results.floods, console)
        if results.probes:
            print_figures(results.probes, console)
        if plots is not None:
            write_plots(results, plots)
        if markdown is not None:
            write_markdown(
                results, f"kaa-bench compare --rounds {rounds} --seconds {scale.seconds:g}", markdown
            )
    except BenchError as error:
        print(f"kaa-bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    runs = [run for result in results.floods for run in result.gateway]
    missing = sum(run.lost_of_acknowledged for run in runs)
    if runs:
        print(f"lost of acknowledged: {missing} of {sum(run.acknowledged for run in runs):,}")
    return EXIT_FAILED if missing or any(run.errors for run in runs) else 0


@app.command
def soak(
    *,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 3600.0,
    devices: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    interval: Annotated[float, Parameter(validator=Number(gt=0))] = 0.1,
    pause: Annotated[float, Parameter(validator=Number(gt=0))] = 5.0,
    only: Literal["services"] | None = None,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
) -> int:
    """Cause faults in random order under devices on all transports, and check the history of every message.

    Starts its own nats-server, two gateways, three extensions and two processes of reference services. Devices of each
    kind send numbered messages to an extension over core NATS and to a durable one, further ones send requests to the
    reference services, and one gets pushes. Meanwhile extensions and services are restarted and killed, networks are
    reset and fall silent, a gateway is killed, the gateways are restarted one by one, and the NATS server is stopped
    and killed. All the time, some datagrams of CoAP and KP/UDP are lost, repeated, delayed and reordered. At
    the end it prints a table of the messages and their outcomes, and one of the properties that were checked: no loss
    after acknowledgement, order, QoS 2 once, answers to their own device, no push after revocation, deadlines.
    docs/guarantees.md has the guarantees.

    The exit status is 1 if a property is violated.

    Parameters
    ----------
    seconds
        Duration; it is longer if that is needed for each fault to happen once.
    devices
        Devices of each kind that send to each of the two extensions, and devices that send to the reference services.
    interval
        Seconds between two messages of a device.
    pause
        Seconds between two faults, in the mean.
    only
        services: no extensions beside the reference services. Gateways ask auth for tokens, some services run in
        workers, and all that was answered with 200 must be stored and found.
    seed
        The order of faults, the pauses between them and the lost datagrams (default: another one each time). A soak
        prints its seed; with it, another one causes the same faults in the same order.
    """
    progress = Console(stderr=True, highlight=False)
    began = time.monotonic()

    def say(sentence: str) -> None:
        progress.print(f"{time.monotonic() - began:7.1f} s  {sentence}", soft_wrap=True)

    try:
        require_clients("the soak")
    except BenchError as error:
        print(f"kaa-bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    from kaa_bench.soak.report import print_soak, violations
    from kaa_bench.soak.run import Soak

    chosen = random.randrange(SEEDS) if seed is None else seed
    run = Soak(
        say,
        devices=devices,
        interval_s=interval,
        pause_s=pause,
        seed=chosen,
        only_services=only == "services",
    )
    try:
        accounts = asyncio.run(run.run(seconds))
    except BenchError as error:
        print(f"kaa-bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    print_soak(accounts, run.findings, run.faults, run.datagrams, Console())
    return EXIT_FAILED if violations(run.findings) else 0


@app.command
def fleet(
    *,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 1200.0,
    clients: Annotated[int, Parameter(validator=Number(gte=1, lte=60_000))] = 2000,
    processes: Annotated[int, Parameter(validator=Number(gte=1))] = 4,
    send: Annotated[float, Parameter(validator=Number(gt=0))] = 10.0,
    roam: Annotated[float, Parameter(validator=Number(gt=0))] = 30.0,
    pause: Annotated[float, Parameter(validator=Number(gt=0))] = 10.0,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    logs: Path | None = None,
) -> int:
    """Have MQTT clients roam between three gateways, cause faults, and check that all is as on one server.

    Starts three nats-servers that form a cluster, three gateways with two workers each, and an extension with a stream.
    Each client has a persistent session and an address of its own in 127.0.0.0/8. Half of the clients are anonymous, a
    quarter have a password, and a quarter have a certificate and use TLS. A client sends messages of QoS 1, and gets a
    push of QoS 1 or 2 for each. Now and then it connects to another gateway while its connection is open, ends the
    connection without a word, or leaves. Meanwhile workers, gateways and NATS servers are killed, and gateways are
    drained, restarted and rebalanced.

    Checked is: no old connection of a client is open one round trip after the CONNACK of the new one (but while a NATS
    server is away); nothing acknowledged is lost; no push is delivered twice at QoS 2, or after its acknowledgement;
    presence shows where each client is. The exit status is 1 if one of these is violated.

    Parameters
    ----------
    seconds
        Duration; it is longer if that is needed for each fault to happen once.
    clients
        Simulated clients.
    processes
        Processes of clients. Each can have half as many clients as descriptors.
    send
        Seconds between two messages of a client, in the mean.
    roam
        Seconds between two moves of a client, in the mean.
    pause
        Seconds between two faults, in the mean.
    seed
        Of the order of faults and of what clients do; one is chosen and printed if it is not given.
    logs
        Keep what the NATS servers, gateways and the extension print in files of this directory.
    """
    from kaa_bench.fleet.report import print_fleet
    from kaa_bench.fleet.run import FleetRun

    progress = Console(stderr=True, highlight=False)
    began = time.monotonic()
    chosen = random.randrange(SEEDS) if seed is None else seed

    def say(sentence: str) -> None:
        progress.print(f"{time.monotonic() - began:7.1f} s  {sentence}", soft_wrap=True)

    say(f"seed {chosen}")
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    run = FleetRun(
        say,
        clients=clients,
        processes=processes,
        send_s=send,
        roam_s=roam,
        pause_s=pause,
        seed=chosen,
        logs=logs,
    )
    try:
        result = asyncio.run(run.run(seconds))
    except BenchError as error:
        print(f"kaa-bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    print_fleet(result, clients, Console())
    return EXIT_FAILED if result.violations() else 0


@app.command
def capacity(
    *,
    connections: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 10_000,
    workers: Annotated[int, Parameter(validator=Number(gte=1))] = 2,
    processes: Annotated[int, Parameter(validator=Number(gte=1, lte=200))] = 2,
    idle: Annotated[float, Parameter(validator=Number(gt=0))] = 60.0,
    tls: Annotated[bool, Parameter(negative="")] = False,
    json: Path | None = None,
) -> int:
    """Hold idle MQTT connections with a keep-alive of 300 s, and measure what they need.

    Starts its own nats-server and gateway. Measured are the time and CPU until all are connected, the memory of all
    processes, the CPU of an idle time with pings, what a NATS server does that is killed and back after 10 s, and the
    drain at SIGTERM.

    The exit status is 1 if a connection was lost before the drain, or is open after it.

    Parameters
    ----------
    connections
        Connections of all clients together.
    workers
        Workers of the gateway. Each can have about as many connections as descriptors (`ulimit -n`).
    processes
        Processes of clients, each with a source address of its own; the same limit.
    idle
        Seconds of the idle time.
    tls
        Connect over TLS.
    json
        Also write the figures to this file.
    """
    from kaa_bench.capacity.report import print_capacity, write_capacity
    from kaa_bench.capacity.run import run_capacity

    progress = Console(stderr=True, highlight=False)
    try:
        found = run_capacity(
            connections, workers=workers, processes=processes, idle_s=idle, encrypted=tls, say=progress.print
        )
    except BenchError as error:
        print(f"kaa-bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    print_capacity(found, Console())
    if json is not None:
        write_capacity(found, json)
    kept = found.open_after_idle == found.open_after_nats == connections
    return EXIT_FAILED if not kept or found.open_after_drain else 0


@app.command
def history(
    *,
    record: Annotated[bool, Parameter(negative="")] = False,
    why: str = "",
    file: Path = Path("docs/instructions.json"),
) -> int:
    """Count the gateway's instructions a message under valgrind, and compare them with the recorded counts.

    Runs eight rows of the bench against one gateway and counts instructions in user space, without libc's copies of
    memory. Such counts depend on the code and its compiler, and hardly on other work of the machine. The file has an
    entry for each commit that was recorded. Counts are compared with the last entry of the same processor, Python,
    Cython, C compiler and libc.

    The exit status is 1 if a row has risen by more than is allowed (3 %, more for some rows; see docs/performance.md).

    Parameters
    ----------
    record
        Add an entry for the commit that is checked out.
    why
        The reason for the rows that have risen. An entry with such rows is not recorded without it.
    file
        The file of the recorded counts.
    """
    from kaa_bench.compare.history import compare_with_history

    try:
        return EXIT_FAILED if compare_with_history(file, record=record, why=why, say=print) else 0
    except BenchError as error:
        print(f"kaa-bench: {error}", file=sys.stderr)
        return EXIT_FAILED


@app.command
def stops(*, quick: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Fill and empty what devices and operators can make long, and print how long a bystander waits meanwhile.

    Starts its own nats-server and gateway. A device sends one PINGREQ after the other while, for example, 20
    connections with 10,000 tokens each lose their application version. A wait is the CPU time that the gateway has used
    between PINGREQ and PINGRESP.

    The exit status is 1 if a wait was longer than 20 ms.

    Parameters
    ----------
    quick
        Fill a small part only, to check that all of it runs.
    """
    from kaa_bench.stops.run import GOAL_S, print_stops, run_stops

    progress = Console(stderr=True, highlight=False)
    try:
        found = run_stops(lambda sentence: progress.print(sentence, soft_wrap=True), quick=quick)
    except BenchError as error:
        print(f"kaa-bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    print_stops(found, Console())
    return EXIT_FAILED if any(stop.waits.longest_cpu_s > GOAL_S for stop in found) else 0


def main() -> None:
    """Run the command line; the entry point of `kaa-bench`."""
    # A run goes on when nobody reads what it prints.
    stdio.protect(stdout=True)
    # The processes that this one starts import nothing from the caller's directory.
    os.environ["PYTHONSAFEPATH"] = "1"
    # SIGTERM is handled as Ctrl-C, so that the servers are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        print("kaa-bench: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
