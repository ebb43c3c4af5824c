"""A UDP fault proxy: forwards datagrams between clients and a server, and drops, repeats, delays and reorders some.

Each client has its own upstream socket, so that the server can distinguish them. A seeded generator decides the faults.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from kaa_bench.processes import HOST

CLIENTS_MAX = 128
"""The number of clients; the one that has been silent longest is removed for a new one, as in a NAT."""


class Faults(NamedTuple):
    """The faults of each direction: probabilities from 0 to 1, times in seconds."""

    drop: float = 0.0
    drop_at_most: int | None = None
    """The limit of losses of the same datagram of a client in one direction; None for no limit. Protocols give up after
    a number of transmissions, and random losses would reach that number in some runs."""
    duplicate: float = 0.0
    reorder: float = 0.0
    """The probability that a datagram is delayed by `hold`, so that later ones overtake it."""
    hold: float = 0.05
    delay: float = 0.0
    jitter: float = 0.0
    """The greatest random extra delay."""


class DatagramProxy:
    """Forwards datagrams between clients of `port` and the server at `server_port`, both on loopback.

    `faults` may be replaced at any time. `to_server` and `to_client` count forwarded datagrams, `dropped` the others,
    `repeated` copies, and `held` those that later ones may overtake.
    """

    def __init__(self, server_port: int, faults: Faults = Faults(), seed: int = 1) -> None:  # noqa: B008 - immutable
        self.faults = faults
        self.port = 0
        self.to_server = 0
        self.to_client = 0
        self.dropped = 0
        self.repeated = 0
        self.held = 0
        self._server = (HOST, server_port)
        self._random = random.Random(seed)
        self._losses: Counter[tuple[bool, tuple[str, int], bytes]] = Counter()
        """The losses by direction (to the server?), client and bytes, if they are limited."""
        self._upstreams: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self._opening: dict[tuple[str, int], list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._on_client), local_addr=(HOST, 0)
        )
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transport is not None
        for task in self._tasks:
            task.cancel()
        self._transport.close()
        for upstream in self._upstreams.values():
            upstream.close()

    def _on_client(self, data: bytes, client: tuple[str, int]) -> None:
        if client in self._upstreams:
            self._upstreams[client] = self._upstreams.pop(client)  # the most recently used is last
            self._to_server(data, client)
        elif client in self._opening:
            self._opening[client].append(data)
        else:
            self._opening[client] = [data]
            task = asyncio.get_running_loop().create_task(self._open(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, client: tuple[str, int]) -> None:
        upstream, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Receiver(lambda data, _: self._to_client(data, client)), remote_addr=self._server
        )
        if len(self._upstreams) >= CLIENTS_MAX:
            self._upstreams.pop(next(iter(self._upstreams))).close()
        self._upstreams[client] = upstream
        for data in self._opening.pop(client):
            self._to_server(data, client)

    def _to_server(self, data: bytes, client: tuple[str, int]) -> None:
        for delay in self._fate(True, client, data):
            self.to_server += 1
            self._later(delay, self._upstreams[client], data, None)

    def _to_client(self, data: bytes, client: tuple[str, int]) -> None:
        assert self._transport is not None
        for delay in self._fate(False, client, data):
            self.to_client += 1
            self._later(delay, self._transport, data, client)

    def _fate(self, to_server: bool, client: tuple[str, int], data: bytes) -> list[float]:
        """Return the delay of each copy of a datagram that is to be forwarded."""
        faults = self.faults
        if self._random.random() < faults.drop and not self._is_spared((to_server, client, data)):
            self.dropped += 1
            return []
        copies = 2 if self._random.random() < faults.duplicate else 1
        self.repeated += copies - 1
        delays = []
        for _ in range(copies):
            delay = faults.delay + faults.jitter * self._random.random()
            if self._random.random() < faults.reorder:
                delay += faults.hold
                self.held += 1
            delays.append(delay)
        return delays

    def _is_spared(self, datagram: tuple[bool, tuple[str, int], bytes]) -> bool:
        """Return whether the limit of losses of a datagram is reached; if not, count this loss."""
        if self.faults.drop_at_most is None:
            return False
        self._losses[datagram] += 1
        return self._losses[datagram] > self.faults.drop_at_most

    def _later(
        self, delay: float, transport: asyncio.DatagramTransport, data: bytes, address: tuple[str, int] | None
    ) -> None:
        def send() -> None:
            if not transport.is_closing():
                transport.sendto(data, address)

        if delay:
            asyncio.get_running_loop().call_later(delay, send)
        else:
            send()


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, on_datagram: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._on_datagram = on_datagram

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._on_datagram(data, addr)
