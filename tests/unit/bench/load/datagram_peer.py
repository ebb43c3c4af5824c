"""The other end of a load's UDP sockets: a server in a thread that answers each datagram with a list of datagrams."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.unit.bench.load.peer import STALL_TIMEOUT_S

SOCKET_BUFFER = 1 << 20
Answer = Callable[[bytes], list[bytes]]


@contextmanager
def datagram_server(answer: Answer) -> Iterator[socket.socket]:
    """A bound socket that is served until the end of the block; what `answer` raises is raised there."""

    def serve() -> None:
        while True:
            datagram, source = server.recvfrom(65536)
            if not datagram:
                return
            for reply in answer(datagram):
                server.sendto(reply, source)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, ThreadPoolExecutor(1) as threads:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        server.settimeout(STALL_TIMEOUT_S)
        server.bind(("127.0.0.1", 0))
        served = threads.submit(serve)
        try:
            yield server
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", server.getsockname())
            served.result()


@contextmanager
def connected_to(answer: Answer, count: int = 1) -> Iterator[list[socket.socket]]:
    """So many sockets connected to such a server; leaving closes them."""
    with datagram_server(answer) as server:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        try:
            for connected in sockets:
                connected.connect(server.getsockname())
            yield sockets
        finally:
            for connected in sockets:
                connected.close()
