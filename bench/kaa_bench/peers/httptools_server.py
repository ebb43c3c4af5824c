"""A minimal HTTP server on httptools and uvloop. `python -m kaa_bench.peers.httptools_server HOST PORT` starts it.

It answers every POST with 200.
"""

import asyncio
import sys
from typing import cast

import httptools
import uvloop

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Answering(asyncio.Protocol):
    """A connection."""

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
        """Handle a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer a complete request."""
        self._body.clear()
        assert self._transport is not None
        self._transport.write(RESPONSE)


async def main(host: str, port: int) -> None:
    """Serve until the process ends."""
    server = await asyncio.get_running_loop().create_server(Answering, host, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
