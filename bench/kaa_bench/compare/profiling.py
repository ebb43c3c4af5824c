"""Counts the instructions of a message: runs the gateway, or an extension, under callgrind for the rows of the bench.

Instruction counts of user space hardly depend on what else the machine does, so they show a change of a few percent,
which CPU time on a shared machine cannot. They do not include the kernel: `strace`, if it is installed, counts system
calls instead. docs/performance.md, "Where the time goes", has results.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeAlias

from cyclopts import App, Parameter
from cyclopts.validators import Number

from kaa_bench.compare.callgrind import Callgrind
from kaa_bench.compare.idle import IdleDevices
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.measure import ANSWERED, address_for
from kaa_bench.compare.probes.connections import AUTHENTICATED
from kaa_bench.compare.probes.extensions import ROWS as EXTENSIONS
from kaa_bench.compare.probes.extensions import ExtensionRow
from kaa_bench.compare.probes.push import DEVICES
from kaa_bench.compare.pushing import Pusher, PushSpec
from kaa_bench.compare.rows import ROWS, Row
from kaa_bench.compare.waits import WaitingDevices
from kaa_bench.connecting import LoadSpec
from kaa_bench.errors import BenchError
from kaa_bench.packets import BENCH, Profile
from kaa_bench.processes import INSTANCE, Gateway, NatsServer

WARM_UP_MESSAGES = 2000
"""Messages that make every route, session and buffer."""
STRACE_STARTS_S = 1.0
EXIT_FAILED = 1
CONNECTIONS_AT_ONCE = 500

Measure: TypeAlias = Callable[[Callable[[], int]], tuple[int, Counter[Any]]]
Measured: TypeAlias = Callable[[Gateway, NatsServer, Measure, int], tuple[int, Counter[Any]]]

app = App(name="python -m kaa_bench.compare.profiling", help_format="markdown", version_flags=[])


@app.default
def profile(
    *,
    rows: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    messages: Annotated[int, Parameter(validator=Number(gte=1000))] = 20_000,
    top: Annotated[int, Parameter(validator=Number(gte=1))] = 25,
) -> int:
    """Print the gateway's instructions per message by module and by function, and its system calls per message.

    The command needs valgrind, and strace for system calls. It runs rows of the bench, probes such as `push`,
    and `wait`. For rows that begin with `ext-` it counts the instructions of the extension's process instead.

    Parameters
    ----------
    rows
        Rows to run, such as `--rows qos0 coap` (default: all of the gateway).
    messages
        Number of messages that are counted.
    top
        Number of functions that are listed.
    """
    try:
        if shutil.which("valgrind") is None:
            raise BenchError("valgrind is not installed: apt-get install valgrind")
        for name in dict.fromkeys(rows or (*ROWS, *OTHERS)):
            if name in OTHERS:
                title, measured = OTHERS[name]
                _print_profile(title, measured, messages, top, GATEWAYS.get(name, Gateway))
            elif name in EXTENSION_ROWS:
                _print_extension_profile(EXTENSION_ROWS[name], messages, top)
            elif name in ROWS:
                _print_profile(ROWS[name].title, partial(count_row, ROWS[name]), messages, top)
            else:
                raise BenchError(f"no row {name!r}; there are {', '.join((*ROWS, *OTHERS, *EXTENSION_ROWS))}")
    except BenchError as error:
        print(f"profile: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def read_system_calls(text: str) -> Counter[str]:
    """Return the calls by name in the table of `strace -c`."""
    calls: Counter[str] = Counter()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] += int(fields[3])
    return calls


def count_row(
    row: Row,
    gateway: Gateway,
    nats: NatsServer,
    measure: Measure,
    messages: int,
) -> tuple[int, Counter[Any]]:
    """Return what `measure` counts while the messages of a row are sent, and their number."""
    with (
        Sink(nats.address, answers=row.load.protocol in ANSWERED) as sink,
        LoadGenerator(row.load, address_for(row, gateway)) as generator,
    ):
        warm_up = generator.run(messages=WARM_UP_MESSAGES)
        expected = row.load.registrations + warm_up.sent
        _await(sink, expected)

        def work() -> int:
            sent = generator.run(messages=messages).sent
            _await(sink, expected + sent)
            return sent

        return measure(work)


def _print_profile(
    title: str, measured: Measured, messages: int, top: int, make: Callable[[NatsServer], Gateway] = Gateway
) -> None:
    with NatsServer() as nats:
        gateway = make(nats)
        callgrind = Callgrind(gateway)
        with gateway:
            sent, counts = measured(gateway, nats, callgrind.count, messages)
    _print_counts(title, sent, counts, top)
    if shutil.which("strace") is None:
        print("  system calls: strace is not installed")
        return
    with NatsServer() as nats, make(nats) as plain:
        sent, calls = measured(plain, nats, lambda work: _traced(plain, work), messages)
    print(
        "  system calls a message: " + ", ".join(f"{name} {n / sent:.3f}" for name, n in calls.most_common(6))
    )


def _print_extension_profile(row: ExtensionRow, messages: int, top: int) -> None:
    """Print the instructions of an extension's process per request."""
    with NatsServer(jetstream=True) as nats, Gateway(nats, durable=row.durable) as gateway:
        service = row.services[0](nats)
        callgrind = Callgrind(service)
        with service, LoadGenerator(row.load, gateway.address_of("mqtt")) as generator:
            generator.run(messages=WARM_UP_MESSAGES)
            sent, counts = callgrind.count(lambda: generator.run(messages=messages).sent)
    _print_counts(row.title, sent, counts, top)


def _print_counts(title: str, sent: int, counts: Counter[tuple[str, str]], top: int) -> None:
    print(f"\n{title}: {counts.total() / sent:,.0f} instructions a message in user space")
    modules: Counter[str] = Counter()
    for (module, _), count in counts.items():
        modules[module] += count
    for module, count in modules.most_common(top // 2):
        print(f"  {count / sent:9,.1f}  {module}")
    print("  by function")
    for (module, function), count in counts.most_common(top):
        print(f"  {count / sent:9,.1f}  {module}: {function}")


def _measured_pushes(
    gateway: Gateway, nats: NatsServer, measure: Measure, messages: int
) -> tuple[int, Counter[Any]]:
    spec = PushSpec(gateway.address_of("mqtt"), nats.address, "esp", INSTANCE)
    with Pusher(spec, DEVICES) as pusher:
        pusher.run(messages=WARM_UP_MESSAGES)
        return measure(lambda: pusher.run(messages=messages).messages)


def _measured_connections(
    gateway: Gateway, nats: NatsServer, measure: Measure, messages: int, profile: Profile = BENCH
) -> tuple[int, Counter[Any]]:
    with IdleDevices(gateway.address_of("mqtt"), profile=profile) as devices:

        def connect(count: int) -> int:
            for done in range(0, count, CONNECTIONS_AT_ONCE):
                devices.connect(min(CONNECTIONS_AT_ONCE, count - done))
                devices.disconnect()
            return count

        connect(WARM_UP_MESSAGES)
        return measure(partial(connect, messages))


def _measured_waits(
    gateway: Gateway, nats: NatsServer, measure: Measure, messages: int
) -> tuple[int, Counter[Any]]:
    with WaitingDevices(gateway.address_of("http"), nats.address) as devices:
        devices.run(WARM_UP_MESSAGES)
        return measure(partial(devices.run, messages))


def _measured_lone(
    gateway: Gateway, nats: NatsServer, measure: Measure, messages: int
) -> tuple[int, Counter[Any]]:
    """Count messages each of which is sent when the one before is confirmed."""
    with (
        Sink(nats.address, answers=False),
        LoadGenerator(LoadSpec("mqtt", 1, qos=1, window=1), gateway.address_of("mqtt")) as generator,
    ):
        generator.run(messages=WARM_UP_MESSAGES)
        return measure(lambda: generator.run(messages=messages).sent)


OTHERS: dict[str, tuple[str, Measured]] = {
    "lone": ("MQTT QoS 1, a message alone", _measured_lone),
    "push": ("push to MQTT, QoS 0", _measured_pushes),
    "connect": ("MQTT connect and disconnect", _measured_connections),
    "connect-authenticated": (
        "MQTT connect with a password, and disconnect",
        partial(_measured_connections, profile=AUTHENTICATED),
    ),
    "wait": ("HTTP request that waits, and the push that answers it", _measured_waits),
}
"""A row that is not a load, by its name in `kaa-bench compare`, which has all of them but `wait`."""
GATEWAYS: dict[str, Callable[[NatsServer], Gateway]] = {
    "connect-authenticated": partial(Gateway, authenticates=True)
}
"""The gateways of rows that need one with other settings."""
EXTENSION_ROWS = {row.name: row for row in EXTENSIONS}


def _await(sink: Sink, count: int) -> None:
    """Wait until the sink has `count` messages, or until nothing can be under way any more."""
    deadline = time.monotonic() + STRACE_STARTS_S * 10
    while sink.received() < count and time.monotonic() < deadline:
        time.sleep(0.05)


def _traced(gateway: Gateway, work: Callable[[], int]) -> tuple[int, Counter[str]]:
    with subprocess.Popen(
        ["strace", "-f", "-c", "-p", str(gateway.pid)], stderr=subprocess.PIPE, text=True
    ) as strace:
        time.sleep(STRACE_STARTS_S)
        sent = work()
        strace.send_signal(2)
        assert strace.stderr is not None
        text = strace.stderr.read()
    return sent, read_system_calls(text)


if __name__ == "__main__":
    sys.exit(app())
