"""The end of a management server, while clients have requests open."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from kaa_gateway.admin import port
from kaa_gateway.admin.server import AdminServer
from prometheus_client import CollectorRegistry

from tests.support.nats import HOST

HANGS_S = 20
"""aiohttp would wait for three times as long."""
BODY_SIZE = 1 << 24


class Requests:
    """A server with one handler, whose requests it counts as they begin and end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.admin = AdminServer(
            CollectorRegistry(), list, [web.get("/waits", self._wait), web.get("/large", self._large)]
        )

    async def _wait(self, request: web.Request) -> web.Response:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        raise AssertionError

    async def _large(self, request: web.Request) -> web.Response:
        self.begun.set()
        return web.Response(body=bytes(BODY_SIZE))


async def stopped(requests: Requests) -> None:
    async with asyncio.timeout(HANGS_S):
        await requests.admin.stop()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "STOP_TIMEOUT", 0.1)


@pytest.mark.parametrize("on_socket", [False, True], ids=["port", "socket"])
async def test_a_request_without_an_answer_is_cancelled(tmp_path: Path, on_socket: bool) -> None:
    requests = Requests()
    path = tmp_path / "worker.sock"
    if on_socket:
        await requests.admin.start_on_socket(path)
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        await requests.admin.start(HOST, 0)
        reader, writer = await asyncio.open_connection(HOST, requests.admin.port)
    writer.write(b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n")
    await requests.begun.wait()
    await stopped(requests)
    assert requests.ended.is_set()
    assert await reader.read() == b""
    writer.close()


async def test_a_client_that_does_not_read_its_answer_is_not_waited_for() -> None:
    requests = Requests()
    await requests.admin.start(HOST, 0)
    _, writer = await asyncio.open_connection(HOST, requests.admin.port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await requests.begun.wait()
    await stopped(requests)
    writer.close()
