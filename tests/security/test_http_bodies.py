"""Bodies of HTTP requests whose sender has not said who it is: refused by their heads, and never held."""

import asyncio
import base64
import functools
import socket
from collections.abc import AsyncIterator

import pytest
from kaa_gateway.config.keys import Clients, IdentitySettings, Limits

from tests.support.auth_provider import INSTANCE, AuthProvider
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.http_gateway import HttpGateway, RawClient, post, running_gateway
from tests.support.nats import HOST, NatsServer

MiB = 1024 * 1024
IDENTITY = IdentitySettings(
    timeout=20,
    clients=Clients(provider="ecap", service_instance=INSTANCE, negative_cache_ttl=0, cache_ttl=0),
)
CHUNKED = b"POST /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\n%bTransfer-Encoding: chunked\r\n\r\n"


def authorization(password: str = "wonderland") -> str:
    return f"Authorization: Basic {base64.b64encode(f'alice:{password}'.encode()).decode()}\r\n"


@pytest.fixture
async def auth(shared_nats: NatsServer) -> AsyncIterator[AuthProvider]:
    provider = AuthProvider(shared_nats.url)
    provider.clients["alice", "wonderland"] = {"credentialId": "id-alice"}
    async with provider:
        yield provider


@pytest.fixture
async def gateway(shared_nats: NatsServer, auth: AuthProvider) -> AsyncIterator[HttpGateway]:
    async with running_gateway(
        shared_nats,
        identity=IDENTITY,
        client_authentication="required",
        max_body_size=100_000,
        limits=Limits(half_open_connections=4),
    ) as running:
        running.extension.echoes = True
        yield running


def head_of(body: bytes, fields: str = "") -> bytes:
    return post("/kp1/app-v1/tsx", body, fields).removesuffix(body)


async def is_served(client: RawClient) -> None:
    """It may go on, with the right credentials."""
    await client.send(post("/kp1/app-v1/tsx", b"mine", authorization()))
    reply = await client.reply()
    assert (reply.status, reply.body) == (200, b"mine")


@pytest.mark.parametrize("fields", ["", authorization("looking-glass"), "Authorization: Basic ?\r\n"])
async def test_the_refusal_does_not_wait_for_the_body(gateway: HttpGateway, fields: str) -> None:
    """Which is read all the same, so that the connection is good for another request."""
    body = bytes(100_000)
    async with await gateway.client() as client:
        await client.send(head_of(body, fields) + body[:1000])
        assert (await client.reply()).status == 401
        await client.send(body[1000:])
        await is_served(client)


async def test_a_chunked_body_is_passed_over_too(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await client.send(CHUNKED % b"" + b"3\r\nabc\r\n")
        assert (await client.reply()).status == 401
        await client.send(b"%X\r\n" % 99_997 + b"POST" * 24_999)
        await client.send(b"x\r\n0\r\n\r\n")
        await is_served(client)


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b"186A1\r\n" + bytes(100_001), "http_body_too_large"),
        (b"no size\r\n", "http_malformed_request"),
        (b"1;" + 50_000 * b"x", "http_header_too_large"),
    ],
)
async def test_what_is_wrong_with_a_body_after_its_refusal_ends_the_connection(
    gateway: HttpGateway, rest: bytes, reason: str
) -> None:
    """Without a second response to the same request."""
    async with await gateway.client() as client:
        await client.send(CHUNKED % b"")
        assert (await client.reply()).status == 401
        await client.send(rest)
        assert await client.rest() == b""
        assert gateway.counted("closed", reason) == 1


async def test_a_refusal_in_its_turn(gateway: HttpGateway) -> None:
    """Responses leave in the order of the requests, whoever sends them."""
    gateway.extension.echoes = False
    async with await gateway.client() as client:
        await client.send(post("/kp1/app-v1/tsx", b"first", authorization()))
        request = await gateway.extension.request()
        await client.send(
            post("/kp1/app-v1/tsx", b"second", authorization("looking-glass"))
            + post("/kp1/app-v1/tsx", b"third", authorization())
        )
        third = await gateway.extension.request()
        await gateway.extension.answer(third, b"third")
        await gateway.extension.answer(request, b"first")
        assert [(await client.reply()).status for _ in range(3)] == [200, 401, 200]


async def test_who_waits_for_continue_is_told_401_in_its_place(gateway: HttpGateway) -> None:
    expects = "Expect: 100-continue\r\n"
    for fields in ("", authorization("looking-glass")):
        async with await gateway.client() as client:
            await client.send(head_of(b"body", expects + fields))
            reply = await client.reply()
            assert (reply.status, reply.fields["Connection"]) == (401, "close")
    async with await gateway.client() as client:
        await client.send(head_of(b"body", expects + authorization()))
        assert (await client.reply()).status == 100
        await client.send(b"body")
        assert (await client.reply()).body == b"body"
        await client.send(post("/kp1/app-v1/tsx", b"known", expects + authorization()))
        assert (await client.reply()).status == 200, "who has sent the body is not asked for it"


async def test_a_last_request_is_refused_without_a_reset(gateway: HttpGateway) -> None:
    """Its sender still sends when the answer comes, and reads it (RFC 9112 section 9.6)."""
    body = bytes(100_000)
    async with await gateway.client() as client:
        await client.send(head_of(body, "Connection: close\r\n"))
        reply = await client.reply()
        assert (reply.status, reply.fields["Connection"]) == (401, "close")
        await client.send(body)
        assert await client.rest() == b""


async def test_a_body_that_never_comes(shared_nats: NatsServer, auth: AuthProvider) -> None:
    async with (
        running_gateway(
            shared_nats, identity=IDENTITY, client_authentication="required", read_timeout=0.5
        ) as gateway,
        await gateway.client() as client,
    ):
        await client.send(head_of(b"body") + b"b")
        assert (await client.reply()).status == 401
        assert await client.rest() == b"", "no second response"
        assert gateway.counted("closed", "http_read_timeout") == 1


async def test_a_provider_that_takes_longer_than_a_request_may(
    shared_nats: NatsServer, auth: AuthProvider
) -> None:
    """What we wait for is not what the client lets us wait for."""
    async with running_gateway(
        shared_nats, identity=IDENTITY, client_authentication="required", read_timeout=0.2
    ) as gateway:
        gateway.extension.echoes = True
        auth.silent = True
        for request in (head_of(b"body", authorization()), post("/kp1/app-v1/tsx", b"", authorization())):
            async with await gateway.client() as client:
                held = auth.asked["ecap.client-username-password"]
                await client.send(request)
                await until(
                    functools.partial(
                        lambda count: auth.asked["ecap.client-username-password"] > count, held
                    ),
                    "the question",
                )
                await asyncio.sleep(1.5)  # in which time would be up, if it ran
                await auth.answer_held()
                if request.endswith(b"Content-Length: 4\r\n\r\n"):
                    await client.send(b"body")
                assert (await client.reply()).status == 200


async def test_who_is_nobody_is_half_open(gateway: HttpGateway) -> None:
    """However often it asks: the oldest such connection makes room, those of clients stay."""
    async with await gateway.client() as known:
        await is_served(known)
        strangers = []
        for _ in range(8):
            strangers.append(await gateway.client())
            await strangers[-1].send(post("/kp1/app-v1/tsx", b"body"))
            assert (await strangers[-1].reply()).status == 401
        for gone in strangers[:4]:
            assert await gone.rest() == b""
        assert gateway.counted("closed", "half_open_connections") == 4
        await is_served(known)
        for stranger in strangers:
            stranger.writer.close()


def test_many_bodies_of_nobody_cost_no_memory(nats_server: NatsServer) -> None:
    """The bound is connections x (head + one read) where credentials are required, whatever the size of a body."""
    connections, body = 96, 1 * MiB
    clients = {"provider": "ecap", "service-instance": INSTANCE}
    settings = {
        "kaa": {
            "kpc": {
                "transports": {"http": {"client-authentication": "required"}},
                "identity": {"clients": clients},
            }
        }
    }
    head = head_of(bytes(body))
    with GatewayProcess(nats_server.url, settings) as gateway:
        peers = [socket.create_connection((HOST, gateway.http_port), timeout=20) for _ in range(connections)]
        before = gateway.rss
        for peer in peers:
            peer.sendall(head + bytes(body - 1))
            assert peer.recv(65_536).startswith(b"HTTP/1.1 401 ")
        # They are in the middle of their bodies, all of which but a byte have been read.
        assert gateway.rss - before < 16 * MiB
        for peer in peers:
            peer.sendall(b"\0" + head)
            assert peer.recv(65_536).startswith(b"HTTP/1.1 401 ")
            peer.close()
