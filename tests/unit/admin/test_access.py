"""Who may use the management API of a gateway without a token: a client on its own machine, and no proxy."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.server import AdminServer
from prometheus_client import CollectorRegistry

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


async def test_with_a_token_a_proxy_may_stand_in_front() -> None:
    server = await serve(Guard(TOKEN))
    for request in PROXIES.values():
        assert await status(server, request) == 401
        authorized = request.replace("\r\n\r\n", f"\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
        assert await status(server, authorized) == 200
    await server.stop()
