"""Counts the instructions of a message: runs the gateway under valgrind's callgrind, for the rows of the bench.

Instruction counts of user space hardly depend on what else the machine does, so they show a change of a few percent,
which CPU time on a shared machine cannot. They do not include the kernel: `strace`, if it is installed, counts system
calls instead. docs/performance.md, "Where the time goes", has results.
"""

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from cyclopts import App, Parameter
from cyclopts.validators import Number

from kaa_bench.compare.idle import IdleDevices
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.measure import ANSWERED
from kaa_bench.compare.probes.push import DEVICES
from kaa_bench.compare.pushing import Pusher, PushSpec
from kaa_bench.compare.rows import ROWS, Row
from kaa_bench.errors import BenchError
from kaa_bench.processes import INSTANCE, START_TIMEOUT_S, Gateway, NatsServer

WARM_UP_MESSAGES = 2000
"""Messages that make every route, session and buffer."""
STRACE_STARTS_S = 1.0
EXIT_FAILED = 1
CONNECTIONS_AT_ONCE = 500
FUNCTION_LINE = re.compile(r"^\s*([\d,]+)(?: \([^)]*\))?\s+(\S+?):(\S.*?)(?: \[(.+)\])?$")
"""A line of callgrind_annotate: instructions, file, function, object."""

Measure: TypeAlias = Callable[[Callable[[], int]], tuple[int, Counter[Any]]]
Measured: TypeAlias = Callable[[Gateway, NatsServer, Measure, int], tuple[int, Counter[Any]]]

app = App(name="python -m kaa_bench.compare.profiling", help_format="markdown", version_flags=[])


class ProfiledGateway(Gateway):
    """The gateway under callgrind, which counts only within `count`."""

    name = "gateway-profiled"
    start_timeout = 10 * START_TIMEOUT_S  # valgrind is slow

    def command(self) -> list[str]:
        """See `Server.command`."""
        out = f"--callgrind-out-file={self.directory / 'callgrind.out'}"
        return ["valgrind", "--tool=callgrind", "--instr-atstart=no", out, *super().command()]

    def count(self, work: Callable[[], int]) -> tuple[int, Counter[tuple[str, str]]]:
        """Return the number of messages, and the instructions by object and function, while `work` sends messages."""
        self._control("--instr=on")
        messages = work()
        self._control("--instr=off")
        self._control("--dump")
        [dump] = (path for path in self.directory.glob("callgrind.out*") if path.stat().st_size)
        return messages, read_annotation(_output("callgrind_annotate", "--threshold=100", str(dump)))

    def _control(self, option: str) -> None:
        _output("callgrind_control", option, str(self.pid))


@app.default
def profile(
    *,
    rows: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    messages: Annotated[int, Parameter(validator=Number(gte=1000))] = 20_000,
    top: Annotated[int, Parameter(validator=Number(gte=1))] = 25,
) -> int:
    """Print the gateway's instructions per message by module and by function, and its system calls per message.

    Needs valgrind; system calls need strace. The rows are those of the bench, and its `push`.

    Parameters
    ----------
    rows
        Rows to run, such as `--rows qos0 coap` (default: all).
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
                _print_profile(title, measured, messages, top)
            elif name in ROWS:
                _print_profile(ROWS[name].title, partial(_measured, ROWS[name]), messages, top)
            else:
                raise BenchError(f"no row {name!r}; there are {', '.join((*ROWS, *OTHERS))}")
    except BenchError as error:
        print(f"profile: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def read_annotation(text: str) -> Counter[tuple[str, str]]:
    """Return the instructions by (object, function) in the output of callgrind_annotate."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        found = FUNCTION_LINE.match(line)
        if found is not None:
            module = Path(found[4] or "unknown").name.partition(".")[0]
            counts[module, found[3].partition("'")[0]] += int(found[1].replace(",", ""))
    return counts


def read_system_calls(text: str) -> Counter[str]:
    """Return the calls by name in the table of `strace -c`."""
    calls: Counter[str] = Counter()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] += int(fields[3])
    return calls


def _print_profile(title: str, measured: Measured, messages: int, top: int) -> None:
    with NatsServer() as nats, ProfiledGateway(nats) as gateway:
        sent, counts = measured(gateway, nats, gateway.count, messages)
    print(f"\n{title}: {counts.total() / sent:,.0f} instructions a message in user space")
    modules: Counter[str] = Counter()
    for (module, _), count in counts.items():
        modules[module] += count
    for module, count in modules.most_common(top // 2):
        print(f"  {count / sent:9,.1f}  {module}")
    print("  by function")
    for (module, function), count in counts.most_common(top):
        print(f"  {count / sent:9,.1f}  {module}: {function}")
    if shutil.which("strace") is None:
        print("  system calls: strace is not installed")
        return
    with NatsServer() as nats, Gateway(nats) as plain:
        sent, calls = measured(plain, nats, lambda work: _traced(plain, work), messages)
    print(
        "  system calls a message: " + ", ".join(f"{name} {n / sent:.3f}" for name, n in calls.most_common(6))
    )


def _measured(
    row: Row,
    gateway: Gateway,
    nats: NatsServer,
    measure: Measure,
    messages: int,
) -> tuple[int, Counter[Any]]:
    protocol = row.load.protocol
    with (
        Sink(nats.address, answers=protocol in ANSWERED) as sink,
        LoadGenerator(row.load, gateway.address_of(protocol)) as generator,
    ):
        warm_up = generator.run(messages=WARM_UP_MESSAGES)
        expected = row.load.registrations + warm_up.sent
        _await(sink, expected)

        def work() -> int:
            sent = generator.run(messages=messages).sent
            _await(sink, expected + sent)
            return sent

        return measure(work)


def _measured_pushes(
    gateway: Gateway, nats: NatsServer, measure: Measure, messages: int
) -> tuple[int, Counter[Any]]:
    spec = PushSpec(gateway.address_of("mqtt"), nats.address, "esp", INSTANCE)
    with Pusher(spec, DEVICES) as pusher:
        pusher.run(messages=WARM_UP_MESSAGES)
        return measure(lambda: pusher.run(messages=messages).messages)


def _measured_connections(
    gateway: Gateway, nats: NatsServer, measure: Measure, messages: int
) -> tuple[int, Counter[Any]]:
    with IdleDevices(gateway.address_of("mqtt")) as devices:

        def connect(count: int) -> int:
            for done in range(0, count, CONNECTIONS_AT_ONCE):
                devices.connect(min(CONNECTIONS_AT_ONCE, count - done))
                devices.disconnect()
            return count

        connect(WARM_UP_MESSAGES)
        return measure(partial(connect, messages))


OTHERS: dict[str, tuple[str, Measured]] = {
    "push": ("push to MQTT, QoS 0", _measured_pushes),
    "connect": ("MQTT connect and disconnect", _measured_connections),
}
"""A row that is not a load, by its name in `kaa-bench compare`."""


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


def _output(*command: str) -> str:
    with suppress(FileNotFoundError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        raise BenchError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
    raise BenchError(f"{command[0]} is not installed: apt-get install valgrind")


if __name__ == "__main__":
    sys.exit(app())
