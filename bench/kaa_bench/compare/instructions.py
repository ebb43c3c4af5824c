"""Counts the instructions a message of several rows, in one gateway under callgrind.

The count of the gateway's own native functions depends on nothing but the code and its compiler. The count of all user
space adds the interpreter, the event loop and libraries. These also work for each turn of the loop and each second,
which is more a message when the machine is busy. libc's copies of memory (`memcpy`) are in neither count: how often
bytes are copied depends on how sockets cut the packets of a load.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import msgspec

from kaa_bench.compare.callgrind import Callgrind
from kaa_bench.compare.profiling import OTHERS, count_row
from kaa_bench.compare.rows import ROWS, Row
from kaa_bench.errors import BenchError
from kaa_bench.processes import Gateway, NatsServer

COUNTED = (
    "push", "wait", "connect", "qos0", "qos1", "qos0-v5-alias", "http", "coap", "kpudp", "kpudp-secure",
)  # fmt: skip
"""The rows in the order in which they are counted.

`push` and `wait` are the first, because sessions of other protocols would get their pushes too.
"""
KPUDP_WINDOW = 4
"""Unacknowledged messages of a KP/UDP device: so few that none is sent again, slow as valgrind is."""
MESSAGES = 6000
CONNECTIONS = 600
"""Messages of the row `connect`, each of which is a connection and takes ten times as long."""
PACKAGE = "kaa_gateway"
"""What Cython puts into the name of each function of the gateway."""
COPIES = ("memcpy", "memmove", "memset", "mempcpy")


class Count(msgspec.Struct, frozen=True):
    """The instructions a message: in the gateway's native functions, and in all."""

    native: int
    all: int


def count_instructions(rows: Iterable[str] = COUNTED) -> dict[str, Count]:
    """Return the instructions a message by row. Raise BenchError if valgrind is not installed."""
    if shutil.which("valgrind") is None:
        raise BenchError("valgrind is not installed: apt-get install valgrind")
    wanted = set(rows)
    chosen = [name for name in COUNTED if name in wanted]
    counted: dict[str, Count] = {}
    with NatsServer() as nats:
        gateway = Gateway(nats)
        callgrind = Callgrind(gateway)
        with gateway:
            for name in chosen:
                measured = OTHERS[name][1] if name in OTHERS else partial(count_row, _row(name))
                messages = CONNECTIONS if name == "connect" else MESSAGES
                sent, counts = measured(gateway, nats, callgrind.count, messages)
                counted[name] = count_of(counts, sent)
    return counted


def count_of(counts: Counter[tuple[str, str]], messages: int) -> Count:
    """Return the counts a message of instructions by module and function."""
    native = total = 0
    for (module, function), count in counts.items():
        if module != "libc" or not any(copy in function for copy in COPIES):
            total += count
        if PACKAGE in function:
            native += count
    return Count(round(native / messages), round(total / messages))


def _row(name: str) -> Row:
    row = ROWS[name]
    return replace(row, load=replace(row.load, window=KPUDP_WINDOW)) if row.load.protocol == "kpudp" else row
