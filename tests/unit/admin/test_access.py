"""Who may use the management API of a gateway without a token: a client on its own machine, and no proxy."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.server import AdminServer
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from tests.support.nats import HOST

TOKEN = "a-token-of-24-characters"
PROXIES = {
    "nginx, as it comes": "GET /api/v1/x HTTP/1.0\r\nHost: 127.0.0.1:8008\r\nConnection: close\r\n\r\n",
    "HTTP/1.0": "GET /api/v1/x HTTP/1.0\r\nHost: localhost\r\n\r\n",
    **{
        field: f"GET /api/v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{field}\r\n\r\n"
        for field in (
            "Forwarded: for=192.0.2.1",
            "Via: 1.1 edge",
            "VIA: 1.1 edge",
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Host: gw.example",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Port: 443",
            "X-Forwarded-Server: edge",
            "X-Forwarded-Prefix: /admin",
            "X-Real-IP: 192.0.2.1",
            "X-Original-URL: /api",
            "X-Original-Forwarded-For: 192.0.2.1",
            "X-Envoy-External-Address: 192.0.2.1",
            "X-Client-IP: 192.0.2.1",
            "X-Cluster-Client-IP: 192.0.2.1",
            "True-Client-IP: 192.0.2.1",
            "CF-Connecting-IP: 192.0.2.1",
            "Fastly-Client-IP: 192.0.2.1",
            "X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678",
            "X-Scheme: https",
            "X-Forwarded-For:",
        )
    },
}
LOCAL = "GET /api/v1/x HTTP/1.1\r\nHost: localhost:8008\r\nUser-Agent: curl/8.0\r\nConnection: close\r\n\r\n"


async def serve(guard: Guard) -> AdminServer:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({})

    server = AdminServer(CollectorRegistry(), list, [web.get("/api/v1/x", answer)], guard)
    await server.start(HOST, 0)
    return server


@pytest_asyncio.fixture
async def server() -> AsyncIterator[AdminServer]:
    server = await serve(Guard(None))
    yield server
    await server.stop()


async def status(server: AdminServer, request: str) -> int:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    writer.write(request.encode())
    line = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    return int(line.split()[1])


async def test_a_client_on_this_machine_is_answered(server: AdminServer) -> None:
    assert await status(server, LOCAL) == 200


@pytest.mark.parametrize("name", PROXIES)
async def test_what_came_through_a_proxy_is_refused(server: AdminServer, name: str) -> None:
    assert await status(server, PROXIES[name]) == 403


async def test_health_is_open_to_proxies(server: AdminServer) -> None:
    for request in PROXIES.values():
        assert await status(server, request.replace("/api/v1/x", "/health/live")) == 200


# ---------------------------------------------------------------- rotation of the token


def bearer(token: str) -> str:
    return LOCAL.replace("\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n")


@pytest_asyncio.fixture
async def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    os.utime(path, (1, 1))
    return path


@pytest_asyncio.fixture
async def guarded(file: Path) -> AsyncIterator[AdminServer]:
    server = await serve(Guard.from_file(file))
    yield server
    await server.stop()


async def test_with_a_token_a_proxy_may_stand_in_front(guarded: AdminServer) -> None:
    for request in PROXIES.values():
        assert await status(guarded, request) == 401
        authorized = request.replace("\r\n\r\n", f"\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
        assert await status(guarded, authorized) == 200


@pytest.mark.parametrize("replaced", [False, True], ids=["in place", "by another file"])
async def test_a_renewed_token_counts_from_the_next_request_on(
    guarded: AdminServer, file: Path, replaced: bool
) -> None:
    assert await status(guarded, bearer(TOKEN)) == 200
    for number in range(3):
        new = f"a-new-token-of-26-character{number}"
        if replaced:
            other = file.with_suffix(".new")
            other.write_text(new)
            other.rename(file)
        else:
            file.write_text(new)
        answers = await asyncio.gather(*(status(guarded, bearer(new)) for _ in range(4)))
        assert answers == [200] * 4
        assert await status(guarded, bearer(TOKEN)) == 401
        assert await status(guarded, LOCAL) == 401, "a token is needed all the same"


async def test_a_link_to_another_file_is_followed(tmp_path: Path) -> None:
    """As a mounted Secret changes."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"a-token-of-{name}-{'x' * 16}")
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "token").symlink_to("data/token")
    server = await serve(Guard.from_file(tmp_path / "token"))
    try:
        assert await status(server, bearer(f"a-token-of-one-{'x' * 16}")) == 200
        (tmp_path / "data.new").symlink_to("two")
        (tmp_path / "data.new").rename(tmp_path / "data")
        assert await status(server, bearer(f"a-token-of-two-{'x' * 16}")) == 200
        assert await status(server, bearer(f"a-token-of-one-{'x' * 16}")) == 401
    finally:
        await server.stop()


@pytest.mark.parametrize("text", ["", "short", "\u00fc" * 20, None])
async def test_a_file_without_a_good_token_changes_nothing(
    guarded: AdminServer, file: Path, text: str | None
) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with capture_logs() as logs:
        assert await status(guarded, bearer(TOKEN)) == 200
        assert await status(guarded, bearer("another-token-of-24-chars")) == 401
        assert await status(guarded, LOCAL) == 401
    assert [entry["event"] for entry in logs] == ["the management token is not renewed"]
    file.write_text(new := "a-new-token-of-26-characters")
    assert await status(guarded, bearer(new)) == 200


async def test_a_token_that_is_being_written_is_not_taken(guarded: AdminServer, file: Path) -> None:
    new = "a-new-token-of-many-characters-that-is-written-slowly"
    file.write_text("")
    asked = asyncio.create_task(status(guarded, bearer(new)))
    half = asyncio.create_task(status(guarded, bearer(new[:20])))
    for size in range(20, len(new), 4):
        file.write_text(new[:size])
        await asyncio.sleep(0.05)
    file.write_text(new)
    assert (await asked, await half) == (200, 401)
