"""The other end of a load's connections: plain sockets, each served by a function in a thread of its own."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

STALL_TIMEOUT_S = 20.0
"""Long enough for a slow machine: no run of a test that passes comes near it."""

T = TypeVar("T")
Serve = Callable[[socket.socket], T]


@contextmanager
def peers(serve: Serve[T], count: int = 1) -> Iterator[tuple[list[socket.socket], list[Future[T]]]]:
    """Sockets for a load, and what `serve` will return for each; leaving closes the sockets."""
    pairs = [socket.socketpair() for _ in range(count)]
    for _, theirs in pairs:
        theirs.settimeout(STALL_TIMEOUT_S)
    with ThreadPoolExecutor(count) as threads:
        try:
            yield [ours for ours, _ in pairs], [threads.submit(_serve, serve, theirs) for _, theirs in pairs]
        finally:
            for ours, _ in pairs:
                ours.close()


def _serve(serve: Serve[T], theirs: socket.socket) -> T:
    with theirs:
        return serve(theirs)


def read_exactly(connected: socket.socket, size: int) -> bytes | None:
    """So many bytes, or None if the load has closed the connection."""
    data = b""
    while len(data) < size:
        part = connected.recv(size - len(data))
        if not part:
            return None
        data += part
    return data
