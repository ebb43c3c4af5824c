"""A NATS server that does nothing by itself: a test reads what a client sends, and writes every byte of the answers.

For what a real nats-server cannot be made to do; tests/support/nats.py starts a real one.
"""

import asyncio
import json
import re
import socket
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.support.nats import HOST

RECEIVE_TIMEOUT_S = 20.0
INFO: dict[str, Any] = {"server_id": "fake", "version": "2.12.0", "headers": True, "max_payload": 1024 * 1024}

TO_WORKERS = re.compile(r"(PUB|SUB) kaa\.v1\.(service|replica)\.[^.]+\.session\.")
"""What a worker of the gateway says to other workers."""


class Publication(NamedTuple):
    """A PUB as it came."""

    subject: str
    reply: str
    payload: bytes


class FakeConnection:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.connect: dict[str, Any] = {}
        self.subscriptions: list[str] = []
        self.between_workers: list[str] = []
        """The SUB lines of what workers tell each other."""

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def line(self) -> str:
        """Return the next line, without CR LF; "" when the client has closed.

        What a worker tells other workers of its sessions is read over.
        """
        while TO_WORKERS.match(line := await self.any_line()):
            if line.startswith("PUB"):
                await self.read(int(line.split(" ")[-1]) + 2)
            else:
                self.between_workers.append(line)
        return line

    async def any_line(self) -> str:
        """Return the next line, also one to other workers."""
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            try:
                return (await self._reader.readline()).decode().removesuffix("\r\n")
            except ConnectionResetError:
                return ""

    async def read(self, size: int) -> bytes:
        """Return the next bytes."""
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            return await self._reader.readexactly(size)

    async def block(self) -> list[Publication]:
        """Return the publications up to the next PING; each must be a PUB with a reply subject."""
        publications = []
        while (line := await self.line()) != "PING":
            word, subject, reply, size = line.split(" ")
            assert word == "PUB", line
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                payload = await self._reader.readexactly(int(size) + 2)
            assert payload.endswith(b"\r\n")
            publications.append(Publication(subject, reply, payload[:-2]))
        return publications

    async def send_info(self, **changes: Any) -> None:
        """Send INFO, with `changes` to the usual fields."""
        await self.send(b"INFO " + json.dumps(INFO | changes).encode() + b"\r\n")

    async def read_connect(self) -> None:
        """Read CONNECT, SUBs and PING, as a client sends them in answer to INFO."""
        word, _, options = (await self.line()).partition(" ")
        assert word == "CONNECT"
        self.connect = json.loads(options)
        while (line := await self.line()) != "PING":
            self.subscriptions.append(line)

    async def admit(self, **info: Any) -> None:
        """Complete the handshake."""
        await self.send_info(**info)
        await self.read_connect()
        await self.send(b"PONG\r\n")

    async def closed(self) -> None:
        """Return when the client has ended the connection; what it still sends is ignored."""
        while await self.line():
            pass

    def close(self) -> None:
        """End the connection, with FIN."""
        self._writer.close()

    def reset(self) -> None:
        """End the connection, with RST if anything is unread."""
        self._writer.transport.abort()


class FakeNats:
    """Listens on a free loopback port; `accept` hands out the clients, in order."""

    def __init__(self) -> None:
        self._accepted: asyncio.Queue[FakeConnection] = asyncio.Queue()
        self._connections: list[FakeConnection] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Its address, without credentials."""
        return f"nats://{HOST}:{self.port}"

    def limit_input(self, size: int) -> None:
        """Let the kernel keep about so many bytes of each later client while nobody reads."""
        for each in self._server.sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    async def accept(self) -> FakeConnection:
        """Return the next client, which has been sent nothing yet."""
        return await asyncio.wait_for(self._accepted.get(), RECEIVE_TIMEOUT_S)

    async def admitted(self, **info: Any) -> FakeConnection:
        """Return the next client, after its handshake."""
        connection = await self.accept()
        await connection.admit(**info)
        return connection

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = FakeConnection(reader, writer)
        self._connections.append(connection)
        self._accepted.put_nowait(connection)
