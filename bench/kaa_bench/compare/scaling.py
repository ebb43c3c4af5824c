"""What a message costs a gateway with more workers: `python -m kaa_bench.compare.scaling` prints a table.

Work is offered at a fixed rate for each worker, so low that two cores suffice for eight. So the cost of a message to
all workers together stays the same, unless workers do something for each other. CPU time is that of workers without
their supervisor. With `--instructions` it is the instructions of user space, counted under valgrind, which do not
depend on what else the machine does.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, NamedTuple

from cyclopts import App, Parameter

from kaa_bench.compare.callgrind import Callgrind
from kaa_bench.compare.features import connect_devices
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.measure import ANSWERED
from kaa_bench.compare.pushing import Pusher, PushSpec
from kaa_bench.connecting import LoadProtocol, LoadSpec
from kaa_bench.errors import BenchError
from kaa_bench.processes import INSTANCE, Gateway, NatsServer, cpu_seconds

WORKERS = (1, 2, 4, 8)
DEVICES = 32
"""Connections of a worker."""
RATE = 100
"""Messages a second of a worker."""
SECONDS = 10.0
WARM_UP_S = 1.0
CONNECTS = 400
"""Of a worker."""
CONNECTS_AT_ONCE = 20
"""Of a worker."""
PUSHES = 4_000
"""Of a worker."""
GREETED_S = 12.0
"""Seconds in which workers have greeted each other."""

Use = Callable[[Callable[[], int]], float]
"""Returns what work has used of the workers, for each message."""

app = App(name="python -m kaa_bench.compare.scaling", help_format="markdown", version_flags=[])


class Work(NamedTuple):
    """Something that is done in proportion to the number of workers."""

    title: str
    measure: Callable[[Gateway, NatsServer, int, Use], float]


@app.default
def measure(
    *,
    workers: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = WORKERS,
    instructions: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Print what a message costs all workers together, for each number of workers.

    Parameters
    ----------
    workers
        Numbers of workers, such as `--workers 1 8`.
    instructions
        Count instructions under valgrind in place of CPU time. Takes some minutes more.
    """
    results: dict[str, list[float]] = {work.title: [] for work in WORKS}
    try:
        for count in workers:
            with _gateway(count, counted=instructions) as (gateway, nats, use):
                for work in WORKS:
                    results[work.title].append(work.measure(gateway, nats, count, use))
                    print(f"{count} workers, {work.title}: {results[work.title][-1]:,.1f}", file=sys.stderr)
    except BenchError as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 1
    print(
        f"| {'instructions' if instructions else 'us of CPU'} | "
        + " | ".join(map(str, workers))
        + " | last / first |"
    )
    print("|---|" + "---|" * (len(workers) + 1))
    for title, costs in results.items():
        cells = " | ".join(f"{cost:,.0f}" if cost >= 100 else f"{cost:.2f}" for cost in costs)
        print(f"| {title} | {cells} | {costs[-1] / costs[0]:.2f} |")
    return 0


@contextmanager
def _gateway(count: int, *, counted: bool) -> Iterator[tuple[Gateway, NatsServer, Use]]:
    with NatsServer() as nats:
        gateway = Gateway(nats, count)
        callgrind = Callgrind(gateway, gateway.workers) if counted else None
        with gateway:
            time.sleep(GREETED_S)

            def use(work: Callable[[], int]) -> float:
                if callgrind is not None:
                    messages, counts = callgrind.count(work)
                    return counts.total() / messages
                before = _cpu_seconds(gateway)
                messages = work()
                return (_cpu_seconds(gateway) - before) / messages * 1e6

            yield gateway, nats, use


def _cpu_seconds(gateway: Gateway) -> float:
    return sum(map(cpu_seconds, gateway.workers()))


def _messages(protocol: LoadProtocol, gateway: Gateway, nats: NatsServer, count: int, use: Use) -> float:
    spec = LoadSpec(protocol, DEVICES * count, qos=1 if protocol == "mqtt" else 0)
    with (
        Sink(nats.address, answers=protocol in ANSWERED),
        LoadGenerator(spec, gateway.address_of(protocol)) as generator,
    ):
        generator.run(seconds=WARM_UP_S, rate=RATE * count)
        return use(lambda: generator.run(seconds=SECONDS, rate=RATE * count).acknowledged)


def _connects(gateway: Gateway, _: NatsServer, count: int, use: Use, *, persistent: bool) -> float:
    at_once = CONNECTS_AT_ONCE * count
    connect_devices(gateway, CONNECTS * count, persistent=persistent, at_once=at_once)
    return use(partial(connect_devices, gateway, CONNECTS * count, persistent=persistent, at_once=at_once))


def _pushes(gateway: Gateway, nats: NatsServer, count: int, use: Use) -> float:
    spec = PushSpec(gateway.address_of("mqtt"), nats.address, "esp", INSTANCE)
    with Pusher(spec, DEVICES * count) as pusher:
        pusher.run(messages=PUSHES)
        return use(lambda: pusher.run(messages=PUSHES * count).messages)


def _silence(gateway: Gateway, _: NatsServer, count: int, use: Use) -> float:
    def wait() -> int:
        time.sleep(SECONDS)
        return int(SECONDS) * count

    return use(wait)


WORKS = (
    Work("MQTT, a message at QoS 1", partial(_messages, "mqtt")),
    Work("HTTP, a request", partial(_messages, "http")),
    Work("CoAP, a request", partial(_messages, "coap")),
    Work("MQTT, CONNECT and DISCONNECT, clean session", partial(_connects, persistent=False)),
    Work("MQTT, CONNECT and DISCONNECT, persistent session", partial(_connects, persistent=True)),
    Work("MQTT, a push", _pushes),
    Work("a second of a worker without devices", _silence),
)


if __name__ == "__main__":
    sys.exit(app())
