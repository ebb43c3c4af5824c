"""A WebSocket client of bare frames: sends what a test says, legal or not, and shows what comes back."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.nats import HOST

RECEIVE_TIMEOUT_S = 20.0
_masks = random.Random(1)
"""Makes mask keys; the same in each run, because frames are in the names of tests."""
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

REQUEST = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "mqtt",
}
"""The fields of a request as it should be; its key is that of RFC 6455 section 1.3."""

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What that key is answered with."""


def request(line: str = "GET /ws HTTP/1.1", **changes: str | None) -> bytes:
    """Return an Upgrade request; a field that is None is left out (underscores in names are dashes)."""
    fields = REQUEST | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    masked: bool = True,
    reserved: int = 0,
    length_size: int | None = None,
) -> bytes:
    """Return a client's frame; `length_size` is that of the extended length, the right one unless given."""
    if length_size is None:
        length_size = 0 if len(payload) < 126 else 2 if len(payload) < 65536 else 8
    first = opcode | reserved << 4 | (0x80 if final else 0)
    short = {0: len(payload), 2: 126, 8: 127}[length_size]
    head = (
        bytes([first, short | (0x80 if masked else 0)])
        + len(payload).to_bytes(length_size or 1, "big")[: length_size or 0]
    )
    if not masked:
        return head + payload
    mask = _masks.randbytes(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class WebSocketPeer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes, *, pieces: bool = False) -> None:
        """Write bytes in one go, or each by itself."""
        for piece in [data[i : i + 1] for i in range(len(data))] if pieces else [data]:
            self._writer.write(piece)
            await asyncio.sleep(0)
        await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the fields of the response to the request."""
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return int(status.split(" ")[1]), dict(line.split(": ", 1) for line in lines)

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the opcode and the payload of the next frame, which is whole; None at the end of the connection."""
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            try:
                first, short = await self._reader.readexactly(2)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return None
            assert first & 0xF0 == 0x80
            assert short < 128
            size = short
            if short >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if short == 126 else 8), "big")
            return first & 0x0F, await self._reader.readexactly(size)

    async def rest(self) -> bytes:
        """Return what comes until the server ends the connection."""
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            return await self._reader.read()


@asynccontextmanager
async def websocket_peer(port: int, *, upgraded: bool = True) -> AsyncIterator[WebSocketPeer]:
    """Yield a connection, by default one that is a WebSocket already."""
    reader, writer = await asyncio.open_connection(HOST, port)
    peer = WebSocketPeer(reader, writer)
    try:
        if upgraded:
            await peer.send(request())
            status, _ = await peer.head()
            assert status == 101
        yield peer
    finally:
        writer.transport.abort()
