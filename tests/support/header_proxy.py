"""A load balancer for datagrams: puts a header of the PROXY protocol, with an address of the test, before each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from tests.support.nats import HOST
from tests.support.proxy_headers import DATAGRAM, binary

Address = tuple[str, int]


class _Upstream(asyncio.DatagramProtocol):
    """The port that the proxy has for one client; passes answers on."""

    def __init__(self, proxy: "_Proxy", client: Address) -> None:
        self._proxy = proxy
        self._client = client

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._proxy.to_client(data, self._client)


class _Proxy(asyncio.DatagramProtocol):
    """The port that clients send to."""

    def __init__(self, port: int, header: bytes) -> None:
        self._port = port
        self._header = header
        self._transport: asyncio.DatagramTransport | None = None
        self._upstream: dict[Address, asyncio.Future[asyncio.DatagramTransport]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if addr not in self._upstream:
            self._upstream[addr] = asyncio.ensure_future(self._open(addr))
        self._upstream[addr].add_done_callback(lambda opened: opened.result().sendto(self._header + data))

    def to_client(self, data: bytes, client: Address) -> None:
        assert self._transport is not None
        self._transport.sendto(data, client)

    def close(self) -> None:
        for opened in self._upstream.values():
            opened.result().close()

    async def _open(self, client: Address) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Upstream(self, client), remote_addr=(HOST, self._port)
        )
        return transport


@asynccontextmanager
async def header_proxy(port: int, source: str, source_port: int) -> AsyncIterator[int]:
    """Yield the port of a proxy in front of `port`, whose headers say that all clients have this address."""
    loop = asyncio.get_running_loop()
    transport, proxy = await loop.create_datagram_endpoint(
        lambda: _Proxy(port, binary(source, source_port, kind=DATAGRAM)), local_addr=(HOST, 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        proxy.close()
        transport.close()
