"""`kaa-sim`: load and fleets of devices for a running gateway."""

import os
import signal
import sys
import time
from contextlib import ExitStack, closing
from json import dumps as encode_json
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import App, Parameter
from cyclopts.validators import Number
from kaa_gateway import __version__, stdio
from kaa_gateway.bus.subjects import NAME
from kaa_gateway.completion import add_completion
from msgspec.structs import replace
from rich.console import Console

from kaa_bench.client_tls import ClientTls
from kaa_bench.connecting import LoadSpec, Protocol, raise_file_limit
from kaa_bench.errors import BenchError
from kaa_bench.packets import MqttVersion, Profile
from kaa_bench.sim import load as loading
from kaa_bench.sim import run as running
from kaa_bench.sim import scenario as scenarios
from kaa_bench.sim.agent import serve
from kaa_bench.sim.agent_processes import BEGIN_IN_S, AgentProcesses
from kaa_bench.sim.connects import print_connects, run_connects, write_connects
from kaa_bench.sim.html import page
from kaa_bench.sim.identities import check_files
from kaa_bench.sim.outputs import Exporter, check_paths, write_csv
from kaa_bench.sim.payloads import Counter
from kaa_bench.sim.process import START_S, LocalProcesses
from kaa_bench.sim.scenario import Fleet, Target, Transport, transport_field
from kaa_bench.sim.values import Duration
from kaa_bench.sim.view import View, print_result

EXIT_FAILED = 1
EXIT_SCENARIO = 2
EXIT_INTERRUPTED = 130
DEFAULT_NATS_URL = "nats://localhost:4222"
MQTT_SN_PORT = 1884
"""The usual port of MQTT-SN."""
WINDOWS: dict[Protocol, int] = {"mqtt": 64, "http": 1, "coap": 1, "kpudp": 32, "mqtt-sn": 8}
PACED_WINDOW = 1024
"""The windows of a paced run, where waiting for the window is counted. HTTP and CoAP keep 1."""
FLOOD_WINDOW = 256


def _is_group(_: object, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError("expected letters, digits, dashes and underscores")


Nats = Annotated[
    str,
    Parameter(
        name="--nats", env_var="NATS_URLS", help="NATS server over which agents and `run` find each other."
    ),
]
Group = Annotated[
    str,
    Parameter(
        name="--group",
        validator=_is_group,
        help="Name of a group of agents: letters, digits, dashes and underscores.",
    ),
]

app = App(name="kaa-sim", help_format="markdown", version=__version__)
add_completion(app)


@app.command
def load(
    protocol: Protocol,
    /,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535))] = None,
    transport: Transport = "tcp",
    connections: Annotated[int, Parameter(validator=Number(gte=1))] = 64,
    qos: Annotated[int, Parameter(validator=Number(gte=0, lte=1))] = 1,
    answered: Annotated[bool, Parameter(negative="")] = False,
    mqtt_version: MqttVersion = "3.1.1",
    topic_alias: Annotated[bool, Parameter(negative="")] = False,
    window: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    rate: Annotated[float, Parameter(validator=Number(gte=0))] = 0,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 10.0,
    messages: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    app_version: str = "demo_application_v1",
    extension: str = "dcx",
    token_prefix: str = "sim-",
    tokens: Path | None = None,
    user: str | None = None,
    password: Annotated[str | None, Parameter(env_var="KAA_SIM_PASSWORD")] = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    sources: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    payload: str | None = None,
    payload_file: Path | None = None,
    server_pid: int | None = None,
    json: Path | None = None,
) -> int:
    """Send as fast as the windows allow, or at a fixed rate, from a native generator in its own process.

    With `--rate` the load is an open loop: every message has a time at which it is due, independent of those before,
    and its latency counts from then. Without it the loop is closed: a connection sends when its window has room, and
    only rate and cost are measured.

    The exit status is 1 if a connection or a message failed.

    Parameters
    ----------
    protocol
        `mqtt`, `http`, `coap`, `kpudp` or `mqtt-sn`.
    host
        IPv4 address or name of the gateway.
    port
        Port of the gateway (default: the usual port of the protocol and transport).
    transport
        `tcp`, `tls`, `websocket` or `websocket-tls` for MQTT, `tcp` or `tls` for HTTP.
    connections
        Connections of MQTT and HTTP, sockets of CoAP and KP/UDP; each is a device with its own token.
    qos
        QoS of MQTT. QoS 0 is not acknowledged: a paced run needs `--answered`.
    answered
        MQTT at QoS 0 with a request ID: a message is outstanding until the extension has answered.
    mqtt_version
        `3.1.1` or `5`.
    topic_alias
        MQTT 5 with a topic alias, which is set before the load, in place of the topic.
    window
        Messages of a connection that may be outstanding (default: 64 for MQTT, 32 for KP/UDP, 1 for HTTP and CoAP;
        in a paced run 1024 for MQTT and KP/UDP).
    rate
        Messages a second over all connections.
    seconds
        Duration of the load.
    messages
        Number of messages, instead of a duration.
    app_version
        Application version in the resource path.
    extension
        Extension instance in the resource path.
    token_prefix
        Beginning of the devices' tokens; six digits follow.
    tokens
        CSV file with a column `token`, instead of the prefix; all tokens have one length.
    user
        User name of all devices; MQTT and HTTP.
    password
        Its password.
    ca_file
        PEM file of who signed the gateway's certificate (default: the system's).
    cert_file
        Client certificate, PEM; {device} stands for the number of the device.
    key_file
        Key of the client certificate, PEM.
    sources
        Local address to connect from; may be given several times, and is then taken in turn.
    payload
        Payload (default: a sample of about 100 bytes).
    payload_file
        File with the payload.
    server_pid
        Process ID of the gateway, if it runs on this machine, to measure its CPU as well.
    json
        Also write the figures to this file.
    """
    try:
        profile = Profile(
            app_version,
            extension,
            token_prefix,
            loading.payload_of(payload, payload_file),
            tokens=loading.tokens_of(tokens, connections),
            user=user,
            password=password,
        )
        check_paths(json)
    except BenchError as error:
        return _fail(error)
    qos = qos if protocol == "mqtt" and not answered else 0
    if window is None:
        window = WINDOWS[protocol]
        if protocol in ("mqtt", "kpudp") and rate:
            window = PACED_WINDOW
        elif protocol == "mqtt" and qos == 0 and not answered:
            window = FLOOD_WINDOW
    try:
        if protocol == "mqtt" and rate and not qos and not answered:
            raise BenchError("QoS 0 is not acknowledged: a paced run needs --qos 1 or --answered")
        with loading.ProgressView(Console(stderr=True)) as view:
            spec = LoadSpec(
                protocol,
                connections,
                qos,
                window,
                answered,
                profile,
                mqtt_version,
                topic_alias,
                sources,
                transport,
                _client_tls(transport, ca_file, cert_file, key_file),
            )
            report = loading.run_load(
                spec,
                (host, port or _usual_port(protocol, transport)),
                messages=messages,
                seconds=None if messages is not None else seconds,
                rate=rate,
                server=server_pid,
                show=view.show,
            )
    except BenchError as error:
        return _fail(error)
    loading.print_report(report, Console())
    if json is not None:
        loading.write_json(report, json)
    return EXIT_FAILED if report.errors else 0


@app.command
def connect(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535))] = None,
    transport: Transport = "tcp",
    count: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 1000,
    rate: Annotated[float, Parameter(validator=Number(gt=0))] = 100.0,
    hold: Annotated[float, Parameter(validator=Number(gte=0))] = 0.0,
    mqtt_version: MqttVersion = "3.1.1",
    tokens: Path | None = None,
    user: str | None = None,
    password: Annotated[str | None, Parameter(env_var="KAA_SIM_PASSWORD")] = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    sources: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    json: Path | None = None,
) -> int:
    """Open MQTT connections at a fixed rate, and measure the time to CONNACK.

    Each connection begins at a fixed time; it does not wait for earlier connections. Its latency counts from that time
    and includes the handshakes of TCP, TLS and WebSocket. The exit status is 1 if a connection failed.

    Parameters
    ----------
    host
        Address of the gateway.
    port
        Port of the gateway (default: the usual port of the transport).
    transport
        `tcp`, `tls`, `websocket` or `websocket-tls`.
    count
        Number of connections.
    rate
        Connections a second.
    hold
        Seconds for which all connections stay open.
    mqtt_version
        `3.1.1` or `5`.
    tokens
        CSV file with the columns `token` and, if wanted, `user` and `password`. The token is the client identifier.
    user
        User name; {device} stands for the number of the device.
    password
        Password; likewise.
    ca_file
        PEM file of who signed the gateway's certificate (default: the system's).
    cert_file
        Client certificate, PEM; {device} stands for the number of the device.
    key_file
        Key of the client certificate, PEM.
    sources
        Local address to connect from; may be given several times, and is then taken in turn.
    json
        Also write the figures to this file.
    """
    try:
        check_paths(json)
        fleet = Fleet(
            name="connect",
            protocol="mqtt",
            devices=count,
            interval=Duration(1.0),
            payload={"x": Counter()},
            transport=transport,
            mqtt_version=mqtt_version,
            tokens=None if tokens is None else str(tokens),
            user=user,
            password=password,
            cert_file=None if cert_file is None else str(cert_file),
            key_file=None if key_file is None else str(key_file),
            sources=sources,
        )
        target = Target(host=host, ca_file=None if ca_file is None else str(ca_file))
        if port is not None:
            target = replace(target, **{transport_field(transport): port})
        raise_file_limit(count)
        result = uvloop.run(run_connects(fleet, target, rate, hold))
    except (BenchError, ValueError) as error:
        return _fail(error)
    print_connects(result, Console())
    if json is not None:
        write_connects(result, json)
    return EXIT_FAILED if result.errors else 0


@app.command
def run(
    scenario: Path,
    /,
    *,
    processes: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    agents: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    agents_wait: Annotated[float, Parameter(validator=Number(gt=0))] = 30.0,
    group: Group = "default",
    nats: Nats = DEFAULT_NATS_URL,
    host: str | None = None,
    port: Annotated[dict[str, int] | None, Parameter(negative="")] = None,
    server_pid: int | None = None,
    json: Path | None = None,
    html: Path | None = None,
    csv: Path | None = None,
    prometheus_port: Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535))] = None,
) -> int:
    """Simulate the fleets of devices in a scenario, and show their results.

    The exit status is 0 if the scenario's criteria are met, 1 if not, 2 if the scenario is wrong. Ctrl-C ends the run
    early, with the same report.

    Parameters
    ----------
    scenario
        The YAML file; its keys are in docs/simulator.md.
    processes
        Processes that share the devices. A process can run about 10,000 devices that send every 10 seconds.
    agents
        Number of agents (`kaa-sim agent`) that share the devices, instead of processes of this machine.
    agents_wait
        Seconds to wait for so many agents.
    host
        Address of the gateway, instead of the scenario's `target.host`.
    port
        Port instead of one of the scenario's `target`, such as `--port.mqtt 1884`.
    server_pid
        Process ID of the gateway, if it runs on this machine, to measure its CPU per message as well.
    json
        Also write the summary to this file.
    html
        Also write a report with plots to this file, which needs no other file.
    csv
        Also write the figures of each second and fleet to this file.
    prometheus_port
        Serve the counts for Prometheus on this port while the run lasts.
    """
    try:
        loaded = scenarios.load(scenario).at(host, port or {})
        text = scenario.read_text(encoding="utf-8")
        if not agents:
            check_files(loaded)
        check_paths(json, html, csv)
    except BenchError as error:
        _fail(error)
        return EXIT_SCENARIO
    console = Console()
    try:
        with ExitStack() as stack:
            watchers = [stack.enter_context(View(console, loaded.duration)).show]
            if prometheus_port is not None:
                watchers.append(stack.enter_context(closing(Exporter(prometheus_port))).show)

            def show(result: running.Result) -> None:
                for watch in watchers:
                    watch(result)

            if agents:
                target = (host, port or {})
                others = AgentProcesses(nats, group, agents, loaded, text, target, agents_wait)
                others.find()
                console.print(f"agents on {', '.join(others.hosts)}", highlight=False)
                result = running.run(loaded, others, time.time() + BEGIN_IN_S, server_pid, show)
            else:
                begin = time.time() + START_S
                local = LocalProcesses(loaded, begin, min(processes, loaded.devices))
                result = running.run(loaded, local, begin, server_pid, show)
    except BenchError as error:
        return _fail(error)
    print_result(result, console)
    if json is not None:
        json.write_text(encode_json(result.summary(), indent=2) + "\n")
    if html is not None:
        html.write_text(page(result, text), encoding="utf-8")
    if csv is not None:
        write_csv(result, csv)
    return EXIT_FAILED if result.failures() else 0


@app.command
def agent(
    *,
    nats: Nats = DEFAULT_NATS_URL,
    group: Group = "default",
    processes: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
) -> int:
    """Simulate a part of the devices of each `kaa-sim run --agents` on the same NATS, until Ctrl-C.

    The agent prints `ready` when it takes parts of runs. It does one at a time. Files that a scenario names are read on
    the agent's machine.

    Parameters
    ----------
    processes
        Processes of this machine that share the agent's devices.
    """
    try:
        uvloop.run(serve(nats, group, processes))
    except BenchError as error:
        return _fail(error)
    return 0


def _usual_port(protocol: Protocol, transport: Transport) -> int:
    if protocol == "mqtt":
        return int(getattr(Target(), transport_field(transport)))
    if protocol == "mqtt-sn":
        return MQTT_SN_PORT
    return int(getattr(Target(), "https" if transport == "tls" else protocol))


def _client_tls(
    transport: Transport, ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> ClientTls | None:
    """Return what the devices trust and present, None without TLS. Raise BenchError if a file is of no use."""
    files = (None if file is None else str(file) for file in (ca_file, cert_file, key_file))
    tls = ClientTls(*files)
    if not transport.endswith("tls"):
        if tls != ClientTls():
            raise BenchError("certificates need --transport tls or websocket-tls")
        return None
    if (cert_file is None) != (key_file is None):
        raise BenchError("--cert-file and --key-file go together")
    tls.context(0)
    return tls


def _fail(error: Exception) -> int:
    print(f"kaa-sim: {error}", file=sys.stderr)
    return EXIT_FAILED


def main() -> None:
    """Run the command line; the entry point of `kaa-sim`."""
    # A run goes on when nobody reads what it prints.
    stdio.protect(stdout=True)
    # The processes that this one starts import nothing from the caller's directory.
    os.environ["PYTHONSAFEPATH"] = "1"
    # SIGTERM is handled as Ctrl-C, so that the child processes are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        print("kaa-sim: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
