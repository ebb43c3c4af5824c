"""A TCP fault proxy: cuts, refuses, pauses, splits and delays. It has its own thread, so its user may block.

Bytes are forwarded unchanged and in order, whatever their protocol.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from kaa_bench.processes import HOST

CHUNK = 64 * 1024
STOP_TIMEOUT_S = 10.0
RESET = struct.pack("ii", 1, 0)
"""The SO_LINGER value with which close sends RST and drops unsent bytes."""

Way = Literal["up", "down"]
"""`up` is from client to server, `down` from server to client."""


@dataclass
class Stream:
    """The faults of one direction, for all connections."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    piece: int = CHUNK
    delay_s: float = 0.0
    bytes_passed: int = 0


class FaultProxy:
    """Forwards its own loopback port, which does not change, to `port`. Methods may be called from any thread.

    `accepted` and `refused` count connections, `cuts` the calls of `cut`.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._ways: dict[Way, Stream] = {"up": Stream(), "down": Stream()}
        for stream in self._ways.values():
            stream.open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self.port = 0
        self.accepted = 0
        self.refused = 0
        self.cuts = 0

    @property
    def url(self) -> str:
        """Return the URL of the proxy as a NATS server."""
        return f"nats://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """Return the number of open client connections."""
        return len(self._writers) // 2

    def bytes_passed(self, way: Way) -> int:
        """Return the bytes forwarded so far over all connections."""
        return self._ways[way].bytes_passed

    def cut(self, *, reset: bool = True) -> None:
        """End every connection on both sides, with RST or, after the forwarded bytes, with FIN."""
        self._call(self._cut, reset)

    def refuse(self, *, on: bool = True) -> None:
        """Close new connections at once, or stop doing so. Existing ones stay."""

        def change() -> None:
            self._refusing = on

        self._call(change)

    def pause(self, *ways: Way) -> None:
        """Forward nothing in a direction (default: both), as a network that drops every packet."""
        for way in ways or self._ways:
            self._call(self._ways[way].open.clear)

    def resume(self) -> None:
        """End `pause`, and forward the delayed bytes."""
        for stream in self._ways.values():
            self._call(stream.open.set)

    def split(self, way: Way, piece: int = 1) -> None:
        """Forward in pieces of `piece` bytes, each in its own packet."""
        self._ways[way].piece = piece

    def delay(self, way: Way, delay_s: float) -> None:
        """Delay every piece by `delay_s` seconds."""
        self._ways[way].delay_s = delay_s

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
        self._loop.close()

    def _call(self, action: Any, *arguments: Any) -> None:
        """Run `action` in the proxy's thread, and wait for it."""
        done: Future[None] = Future()

        def run() -> None:
            action(*arguments)
            done.set_result(None)

        self._loop.call_soon_threadsafe(run)
        done.result(STOP_TIMEOUT_S)

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(STOP_TIMEOUT_S)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        self._cut(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self, reset: bool) -> None:
        self.cuts += 1
        for writer in self._writers:
            _end(writer, reset)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._refusing:
                self.refused += 1
                _end(writer, reset=True)
                return
            self.accepted += 1
            await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target, limit=CHUNK)
        except OSError:
            _end(writer, reset=True)
            return
        both = {writer, server_writer}
        self._writers |= both
        ways = [
            asyncio.create_task(_pass(self._ways["up"], reader, server_writer)),
            asyncio.create_task(_pass(self._ways["down"], server_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= both
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in both:
                _end(each, reset=False)


async def _pass(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward a direction of a connection until either side ends."""
    _socket(writer).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            at = 0
            while at < len(chunk):
                if stream.delay_s:
                    await asyncio.sleep(stream.delay_s)
                await stream.open.wait()
                piece = chunk[at : at + stream.piece]
                writer.write(piece)
                await writer.drain()
                stream.bytes_passed += len(piece)
                at += len(piece)


def _end(writer: asyncio.StreamWriter, reset: bool) -> None:
    if writer.transport.is_closing():
        return
    if reset:
        _socket(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
    else:
        writer.close()


def _socket(writer: asyncio.StreamWriter) -> socket.socket:
    found: socket.socket = writer.get_extra_info("socket")
    return found
