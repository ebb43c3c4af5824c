"""A process that holds idle MQTT connections and sends PINGREQ within their keep-alive."""

import select
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from kaa_bench import packets
from kaa_bench.certificate import client_context
from kaa_bench.compare.instruments import Instrument
from kaa_bench.connecting import Address, connect_mqtt, raise_file_limit, read_exactly
from kaa_bench.errors import BenchError
from kaa_bench.processes import private_memory

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
PING_SHARE = 0.8
"""Pings are sent after this share of the keep-alive."""
ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Holder(Instrument):
    """MQTT connections from one source address, which stay open: over TLS if they are `encrypted`."""

    def __init__(
        self, address: Address, source: str, profile: packets.Profile, keep_alive: int, *, encrypted: bool
    ) -> None:
        super().__init__(_hold, address, source, profile, keep_alive, encrypted)

    def connect(self, count: int) -> None:
        """Make `count` connections, past CONNACK, one after the other."""
        self._request(count=count)

    def open_connections(self) -> int:
        """Return how many connections are open."""
        return int(self._request(count=0))

    def memory(self) -> int:
        """Return the bytes of private memory of the process."""
        assert self._process.pid is not None
        return private_memory(self._process.pid)


def _hold(
    pipe: Connection,
    address: Address,
    source: str,
    profile: packets.Profile,
    keep_alive: int,
    encrypted: bool,
) -> None:
    context = client_context() if encrypted else None
    held: list[socket.socket] = []
    turn = 0
    next_ping = time.monotonic()
    pipe.send(None)
    while True:
        if pipe.poll(max(0.0, next_ping - time.monotonic()) if held else None):
            count = pipe.recv()["count"]
            if not count:
                pipe.send(_count_open(held))
                continue
            raise_file_limit(len(held) + count)
            held.extend(
                connect_mqtt(address, device, profile, context, source=source, keep_alive=keep_alive)
                for device in range(len(held), len(held) + count)
            )
            next_ping = time.monotonic()
            pipe.send(None)
            continue
        _ping(held[turn])
        turn = (turn + 1) % len(held)
        next_ping += PING_SHARE * keep_alive / len(held)


def _ping(connected: socket.socket) -> None:
    """Send PINGREQ, and read its answer, unless the server has ended the connection."""
    with suppress(OSError):
        connected.sendall(PINGREQ)
        answer = read_exactly(connected, len(PINGRESP))
        if answer not in (PINGRESP, b""):
            raise BenchError(f"PINGREQ was answered with {answer.hex(' ')}")


def _count_open(held: list[socket.socket]) -> int:
    """Return how many connections the server has not ended."""
    poller = select.poll()
    for connected in held:
        poller.register(connected, ENDED)
    return len(held) - len(poller.poll(0))
