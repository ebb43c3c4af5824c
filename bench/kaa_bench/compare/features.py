"""What features cost that are off by default: `python -m kaa_bench.compare.features` prints tables.

Instructions are counted under valgrind (see profiling.py), each with a feature and without it, for the same work. CPU
time is the gateway process's, without valgrind. On a shared machine, compare only its ratios.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from typing import Any

from cyclopts import App

from kaa_bench.compare.callgrind import Callgrind
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.profiling import Measure, count_row
from kaa_bench.compare.rows import ROWS
from kaa_bench.connecting import connect_nats
from kaa_bench.errors import BenchError
from kaa_bench.mqtt_packets import Connect, encode
from kaa_bench.packets import APP_VERSION
from kaa_bench.processes import Gateway, NatsServer

MESSAGES = 60_000
"""Enough that what happens a few times a second does not count."""
CONNECTIONS = 400
CONNECTIONS_TIMED = 4000
WARM_UP_CONNECTIONS = 300
CONNECTIONS_AT_ONCE = 100
DEVICES = 5000
IDLE_S = 60.0
GREETED_S = 12.0
"""Seconds in which workers have greeted each other, and presence has written all."""
LIMIT = 100_000_000
"""Of each quota: none is ever reached."""
DISCONNECT = b"\xe0\x00"
QUOTA_ROWS = ("qos0", "qos1", "coap", "http", "kpudp")

app = App(name="python -m kaa_bench.compare.features", help_format="markdown", version_flags=[])


class FeaturedGateway(Gateway):
    """The gateway of the bench, with quotas that are never reached, or with presence."""

    def __init__(self, nats: NatsServer, *, quotas: bool = False, presence: bool = False) -> None:
        super().__init__(nats)
        self._quotas = quotas
        self._presence = presence

    def configuration(self) -> dict[str, object]:
        """See `Gateway.configuration`."""
        document: Any = super().configuration()
        kaa = document["kaa"]
        if self._quotas:
            rates = {"messages-per-second": LIMIT, "bytes-per-second": LIMIT}
            quota = rates | {"messages-per-month": LIMIT}
            kaa["tenants"] = {"bench": {"quota": quota}}
            kaa["applications"]["bench"]["tenant"] = "bench"
            kaa["applications"]["bench"]["versions"][APP_VERSION] |= {"quota": quota, "endpoint-quota": rates}
        kaa["kpc"]["events"] = {"presence": self._presence}
        return document  # type: ignore[no-any-return]


@app.default
def measure() -> int:
    """Print what quotas, the session directory and presence cost. Takes about ten minutes."""
    try:
        _quotas()
        _directory()
        _presence()
    except BenchError as error:
        print(f"features: {error}", file=sys.stderr)
        return 1
    return 0


def _quotas() -> None:
    """Instructions a message with a quota of the endpoint, the application version and the tenant."""
    print("| row | without quotas | with three quotas | ratio |\n|---|---|---|---|")
    for name in QUOTA_ROWS:
        without, with_quotas = (_instructions_of_row(name, quotas=quotas) for quotas in (False, True))
        _print_row(name, without, with_quotas)


def _directory() -> None:
    """Instructions and CPU of a CONNECT whose session may be on another replica."""
    for what, persistent, beside in (
        ("clean, anonymous, alone", False, False),
        ("clean, anonymous, beside a replica", False, True),
        ("persistent, alone", True, False),
        ("persistent, beside a replica", True, True),
    ):
        with _gateway_beside(beside, valgrind=True) as (gateway, callgrind):
            connect_devices(gateway, WARM_UP_CONNECTIONS, persistent=persistent)
            work = partial(connect_devices, gateway, CONNECTIONS, persistent=persistent)
            instructions = _per_message(callgrind.count, work)
        with _gateway_beside(beside, valgrind=False) as (gateway, _):
            connect_devices(gateway, WARM_UP_CONNECTIONS, persistent=persistent)
            before = gateway.cpu_seconds()
            connect_devices(gateway, CONNECTIONS_TIMED, persistent=persistent)
            cpu = (gateway.cpu_seconds() - before) / CONNECTIONS_TIMED
        print(f"CONNECT and DISCONNECT, {what}: {instructions:,.0f} instructions, {cpu * 1e6:.0f} us of CPU")


def _presence() -> None:
    """Instructions of a message, and what connected devices that send nothing cost."""
    without, with_presence = (_instructions_of_row("qos1", presence=presence) for presence in (False, True))
    _print_row("qos1, presence off and on", without, with_presence)
    for presence in (False, True):
        with NatsServer(jetstream=True) as nats, FeaturedGateway(nats, presence=presence) as gateway:
            load = replace(ROWS["qos1"].load, connections=DEVICES, window=1)
            time.sleep(GREETED_S)
            before = gateway.cpu_seconds()
            with (
                Sink(nats.address, answers=False),
                _counted(nats) as count,
                LoadGenerator(load, gateway.address_of("mqtt")) as generator,
            ):
                generator.run(messages=DEVICES)
                time.sleep(GREETED_S)
                arrived, arrival_messages = gateway.cpu_seconds() - before, count()
                before = gateway.cpu_seconds()
                time.sleep(IDLE_S)
                idle, idle_messages = gateway.cpu_seconds() - before, count() - arrival_messages
        print(
            f"presence {'on' if presence else 'off'}: {DEVICES} devices connect and send once: "
            f"{arrived / DEVICES * 1e6:.0f} us of CPU and {arrival_messages / DEVICES:.3f} messages in NATS each; "
            f"a minute of silence, for 10,000 devices: {idle * 1e4 / DEVICES:.3f} s of CPU, "
            f"{idle_messages * 1e4 / DEVICES:.0f} messages"
        )


# ------------------------------------------------------------ instruments


def _instructions_of_row(name: str, *, quotas: bool = False, presence: bool = False) -> float:
    with NatsServer(jetstream=quotas or presence) as nats:
        gateway = FeaturedGateway(nats, quotas=quotas, presence=presence)
        callgrind = Callgrind(gateway)
        with gateway:
            messages, counts = count_row(ROWS[name], gateway, nats, callgrind.count, MESSAGES)
    return counts.total() / messages


def _per_message(measure: Measure, work: Callable[[], int]) -> float:
    messages, counts = measure(work)
    return counts.total() / messages


@contextmanager
def _gateway_beside(beside: bool, *, valgrind: bool) -> Iterator[tuple[Gateway, Callgrind]]:
    """Yield a gateway: alone, or beside another replica of it."""
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        if beside:
            stack.enter_context(Gateway(nats))
        gateway = Gateway(nats)
        callgrind = Callgrind(gateway) if valgrind else None
        stack.enter_context(gateway)
        time.sleep(GREETED_S)
        yield gateway, callgrind  # type: ignore[misc]


def connect_devices(
    gateway: Gateway, count: int, *, persistent: bool, at_once: int = CONNECTIONS_AT_ONCE
) -> int:
    """Connect and disconnect devices, some at a time."""
    for first in range(0, count, at_once):
        devices = [socket.create_connection(gateway.address_of("mqtt")) for _ in range(at_once)]
        for number, device in enumerate(devices, first):
            device.sendall(encode(Connect(f"device-{number}", clean_session=not persistent, keep_alive=0)))
        for device in devices:
            answer = device.recv(4)
            if answer[:1] != b"\x20" or answer[3:] != b"\x00":
                raise BenchError(f"unexpected answer to CONNECT: {answer!r}")
            device.sendall(DISCONNECT)
        for device in devices:
            while device.recv(1024):
                pass
            device.close()
    return count


@contextmanager
def _counted(nats: NatsServer) -> Iterator[Callable[[], int]]:
    """Yield a function that returns how many messages NATS has had so far, ClientData apart."""
    connected = connect_nats(nats.address, "SUB > 1\r\n")
    seen = [0]
    ended = Event()

    def read() -> None:
        tail = b""
        while not ended.is_set():
            data = connected.recv(1 << 16)
            if not data:
                return
            lines = (tail + data).split(b"\r\n")
            tail = lines.pop()
            for line in lines:
                if line == b"PING":
                    connected.sendall(b"PONG\r\n")
                elif line.startswith((b"MSG ", b"HMSG ")) and b"ClientData" not in line:
                    seen[0] += 1

    thread = Thread(target=read, daemon=True)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        connected.shutdown(socket.SHUT_RDWR)
        thread.join()
        connected.close()


def _print_row(name: str, before: float, after: float) -> None:
    print(f"| {name} | {before:,.0f} | {after:,.0f} | {after / before:.3f} |", flush=True)


if __name__ == "__main__":
    sys.exit(app())
