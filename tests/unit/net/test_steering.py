"""The kernel's choice of a worker for a datagram, with real sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kaa_gateway.net import steering

from tests.support.kpudp_examples import VECTORS
from tests.support.proxy_headers import DATAGRAM, binary

WORKERS = 3
TRIES = 24
HELLO = VECTORS["HELLO"]
PROXY_HEADER = binary("198.51.100.9", kind=DATAGRAM)
WITH_ID = [
    name for name, datagram in VECTORS.items() if datagram[:1] == b"\xb2" and datagram[1] in (3, 4, 5, 8)
]


class Sockets:
    """Sockets that share a port, and where a datagram has arrived."""

    def __init__(self, stack: ExitStack) -> None:
        self.members = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(WORKERS)
        ]
        port = 0
        for each in self.members:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(("127.0.0.1", port))
            each.setblocking(False)
            port = each.getsockname()[1]
        self.port = port

    def arrivals(self, datagram: bytes) -> list[int]:
        """Send a datagram from several ports; return by worker how many have arrived. Loopback delivers at once."""
        for _ in range(TRIES):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
                device.sendto(datagram, ("127.0.0.1", self.port))
        counts = [0] * WORKERS
        for index, each in enumerate(self.members):
            while True:
                try:
                    each.recv(2048)
                except BlockingIOError:
                    break
                counts[index] += 1
        assert sum(counts) == TRIES
        return counts


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        found = Sockets(stack)
        steering.attach(found.members[0])
        yield found


@pytest.mark.parametrize("proxy", [b"", PROXY_HEADER], ids=["direct", "proxy"])
@pytest.mark.parametrize("name", WITH_ID)
def test_a_connection_id_names_its_worker(sockets: Sockets, name: str, proxy: bytes) -> None:
    for worker in range(WORKERS):
        datagram = bytearray(VECTORS[name])
        datagram[2] = worker
        assert sockets.arrivals(proxy + bytes(datagram))[worker] == TRIES


@pytest.mark.parametrize(
    "datagram",
    [HELLO, b"\xb2\x04\xff" + bytes(27), b"\xb1" + bytes(40), b"x", b"", PROXY_HEADER],
    ids=["hello", "no such worker", "plain", "short", "empty", "health check"],
)
def test_any_other_datagram_goes_to_any_worker(sockets: Sockets, datagram: bytes) -> None:
    counts = sockets.arrivals(datagram)
    if datagram not in (PROXY_HEADER,):
        assert max(counts) < TRIES
