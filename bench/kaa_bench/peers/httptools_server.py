"""`python -m kaa_bench.peers.httptools_server HOST PORT`: httptools on uvloop, and nothing else.

Any POST is answered 200.
"""

import asyncio
import sys
from typing import cast

import httptools
import uvloop

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._body.clear()
        assert self._transport is not None
        self._transport.write(RESPONSE)


async def main(host: str, port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Answering, host, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
