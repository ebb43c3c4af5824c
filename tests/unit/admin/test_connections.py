"""The bounds of a management server's connections, over sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kaa_gateway.admin import connections
from kaa_gateway.admin.server import AdminServer
from prometheus_client import CollectorRegistry

from tests.support.nats import HOST

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


class Peer:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes = LIVE) -> int:
        """The status of the response; 0 if the connection is closed."""
        self.writer.write(request)
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        return int(head.split()[1])

    async def is_closed(self) -> bool:
        """Whether the server closes the connection soon."""
        try:
            return await asyncio.wait_for(self.reader.read(), 0.5) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


class Server:
    """A server with a slow handler, which waits for `released`."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.peers: list[Peer] = []
        self.admin = AdminServer(CollectorRegistry(), list, [web.get("/slow", self._slow)])

    async def _slow(self, request: web.Request) -> web.Response:
        await self.released.wait()
        return web.json_response({})

    async def peer(self) -> Peer:
        self.peers.append(Peer(*await asyncio.open_connection(HOST, self.admin.port)))
        await asyncio.sleep(0.02)
        return self.peers[-1]


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    server = Server()
    await server.admin.start(HOST, 0)
    try:
        yield server
    finally:
        for peer in server.peers:
            peer.writer.close()
        server.released.set()
        await server.admin.stop()


async def test_one_connection_more_takes_the_place_of_the_oldest_without_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)
    async with running() as server:
        silent, used, slow = [await server.peer() for _ in range(3)]
        answer = asyncio.create_task(slow.ask(SLOW))
        await asyncio.sleep(0.05)
        assert await used.ask() == 200
        newcomer = await server.peer()
        assert await newcomer.ask() == 200
        assert await silent.is_closed()
        assert await used.ask() == 200
        server.released.set()
        assert await answer == 200


async def test_none_is_accepted_while_all_have_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 2)
    async with running() as server:
        answers = [asyncio.create_task((await server.peer()).ask(SLOW)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert await (await server.peer()).is_closed()
        server.released.set()
        assert [await answer for answer in answers] == [200, 200]
        assert await (await server.peer()).ask() == 200


@pytest.mark.parametrize("sent", [b"", LIVE[:-2], b"PUT /health/live HTTP/1.1\r\nHost: a\r\nContent-Le"])
async def test_who_sends_no_request_is_disconnected(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.3)
    async with running() as server:
        peer = await server.peer()
        peer.writer.write(sent)
        assert await peer.is_closed()


async def test_bytes_that_trickle_give_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.3)
    async with running() as server:
        peer = await server.peer()
        for byte in LIVE[:5]:
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0.1)
        assert await peer.is_closed()


async def test_each_request_gives_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.4)
    async with running() as server:
        peer = await server.peer()
        for _ in range(4):
            await asyncio.sleep(0.2)
            assert await peer.ask() == 200
        assert await peer.is_closed()


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.3)

    async def put(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({})

    server = AdminServer(CollectorRegistry(), list, [web.put("/log", put)])
    await server.start(HOST, 0)
    peer = Peer(*await asyncio.open_connection(HOST, server.port))
    peer.writer.write(b"PUT /log HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    assert await peer.is_closed()
    await server.stop()


async def test_nothing_is_left_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 2)
    async with running() as server:
        for _ in range(20):
            peer = await server.peer()
            assert await peer.ask() == 200
            peer.writer.close()
        before = len(asyncio.all_tasks())
        for _ in range(20):
            await server.peer()
        assert len(asyncio.all_tasks()) <= before + 2
