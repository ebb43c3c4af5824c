"""Requests of web pages: the CORS protocol of the Fetch standard, for the origins of the configuration."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.http_gateway import HttpGateway, Reply, post, running_gateway
from tests.support.nats import NatsServer

PAGE = "https://app.example.com"
PREFLIGHT = (
    "OPTIONS /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\nOrigin: {}\r\nAccess-Control-Request-Method: POST\r\n"
    "Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
)


@pytest_asyncio.fixture
async def gateway(shared_nats: NatsServer) -> AsyncIterator[HttpGateway]:
    async with running_gateway(
        shared_nats, allowed_origins=(PAGE, "http://localhost:3000"), client_authentication="optional"
    ) as running:
        running.extension.echoes = True
        yield running


def allowed(reply: Reply) -> str | None:
    return reply.fields.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
async def test_a_page_of_an_allowed_origin(gateway: HttpGateway, origin: str) -> None:
    async with await gateway.client() as client:
        await client.send(PREFLIGHT.format(origin).encode())
        reply = await client.reply()
        assert (reply.status, allowed(reply), reply.fields["Vary"]) == (204, origin, "Origin")
        assert "POST" in reply.fields["Access-Control-Allow-Methods"]
        assert reply.fields["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
        await client.send(post("/kp1/app-v1/tsx", b"body", f"Origin: {origin}\r\n"))
        reply = await client.reply()
        assert (reply.status, reply.body, allowed(reply)) == (200, b"body", origin)
        await client.send(post("/nowhere", fields=f"Origin: {origin}\r\n"))
        reply = await client.reply()
        assert (reply.status, allowed(reply)) == (404, origin), "a page may read errors, too"


@pytest.mark.parametrize("origin", ["https://other.example", "null", f"{PAGE}.evil.example", f"{PAGE}:8443"])
async def test_a_page_of_another_origin(gateway: HttpGateway, origin: str) -> None:
    async with await gateway.client() as client:
        await client.send(PREFLIGHT.format(origin).encode())
        reply = await client.reply()
        assert (reply.status, allowed(reply)) == (204, None)
        await client.send(post("/kp1/app-v1/tsx", fields=f"Origin: {origin}\r\n"))
        assert allowed(await client.reply()) is None


async def test_each_response_is_for_the_page_of_its_request(gateway: HttpGateway) -> None:
    """Behind a proxy, pages share a connection."""
    gateway.extension.echoes = False
    async with await gateway.client() as client:
        origins = [PAGE, None, "http://localhost:3000", "https://other.example"]
        for origin in origins:
            await client.send(post("/kp1/app-v1/tsx", fields=f"Origin: {origin}\r\n" if origin else ""))
        await client.send(PREFLIGHT.format(PAGE).encode())
        requests = [await gateway.extension.request() for _ in origins]
        for request in reversed(requests):
            await gateway.extension.answer(request)
        replies = [await client.reply() for _ in range(5)]
        assert [allowed(reply) for reply in replies] == [PAGE, None, "http://localhost:3000", None, PAGE]


async def test_all_origins(shared_nats: NatsServer) -> None:
    async with (
        running_gateway(shared_nats, allowed_origins=("*",)) as gateway,
        await gateway.client() as client,
    ):
        await client.send(PREFLIGHT.format("null").encode())
        reply = await client.reply()
        assert (reply.status, allowed(reply), reply.fields.get("Vary")) == (204, "*", None)


async def test_without_origins_options_is_405(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats) as gateway, await gateway.client() as client:
        await client.send(PREFLIGHT.format(PAGE).encode())
        reply = await client.reply()
        assert (reply.status, allowed(reply)) == (405, None)
