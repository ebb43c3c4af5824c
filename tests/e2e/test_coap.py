"""CoAP end to end: aiocoap's client and libcoap's, our server, a real NATS server, extensions on the SDK."""

import asyncio
import functools
import re
from collections.abc import AsyncIterator

import aiocoap
import pytest
from aiocoap import Code
from kaa_ext import Extension, Request
from kaa_ext.services import echo

from tests.support.cluster import Cluster
from tests.support.coap import RunningCoapServer, coap_server
from tests.support.esp import until
from tests.support.nats import NatsServer

LARGE = bytes(i * 7 % 251 for i in range(20_000))
CLIENT_TIMEOUT_S = 30.0


@pytest.fixture
async def server(nats_server: NatsServer) -> AsyncIterator[RunningCoapServer]:
    """A server, with the echo extension, and `slow`, which answers after the piggyback delay."""
    service = Extension("echo", nats_urls=[nats_server.url])
    echo.register(service)
    slow = Extension("slow", nats_urls=[nats_server.url])

    @slow.handler("*")
    async def answer_late(request: Request) -> bytes:
        await asyncio.sleep(0.4)
        return request.payload

    async with service, slow, coap_server(nats_server.url) as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[aiocoap.Context]:
    context = await aiocoap.Context.create_client_context(transports=["simple6"])
    yield context
    await context.shutdown()


async def ask(client: aiocoap.Context, uri: str, payload: bytes = b"", **changes: object) -> aiocoap.Message:
    message = aiocoap.Message(code=changes.pop("code", Code.POST), uri=uri, payload=payload, **changes)
    return await asyncio.wait_for(client.request(message).response, CLIENT_TIMEOUT_S)


async def coap_client(*arguments: str) -> bytes:
    """What coap-client-notls prints."""
    process = await asyncio.create_subprocess_exec(
        "coap-client-notls",
        "-B",
        "10",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), CLIENT_TIMEOUT_S)
    return output + errors


@pytest.mark.parametrize("extension", ["echo", "slow"])
@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (Code.POST, Code.CHANGED),
        (Code.PUT, Code.CHANGED),
        (Code.GET, Code.CONTENT),
        (Code.FETCH, Code.CONTENT),
    ],
)
async def test_aiocoap_is_answered(
    client: aiocoap.Context, server: RunningCoapServer, extension: str, code: Code, answer: Code
) -> None:
    payload = b"" if code == Code.GET else b"hello"
    response = await ask(client, f"{server.uri}/kp1/app_v1/{extension}/token/json", payload, code=code)
    assert (response.code, response.payload) == (answer, payload)


@pytest.mark.parametrize("extension", ["echo", "slow"])
async def test_aiocoap_sends_and_fetches_blocks(
    client: aiocoap.Context, server: RunningCoapServer, extension: str
) -> None:
    response = await ask(client, f"{server.uri}/kp1/app_v1/{extension}/token/json", LARGE)
    assert response.code == Code.CHANGED
    assert response.payload == LARGE


async def test_aiocoap_non_confirmable(client: aiocoap.Context, server: RunningCoapServer) -> None:
    response = await ask(
        client, f"{server.uri}/kp1/app_v1/slow/token/json", b"non", transport_tuning=aiocoap.Unreliable
    )
    assert response.payload == b"non"


async def test_aiocoap_discovers(client: aiocoap.Context, server: RunningCoapServer) -> None:
    response = await ask(client, f"{server.uri}/.well-known/core", code=Code.GET)
    assert response.opt.content_format == 40
    assert b'</kp1/app_v1/echo>;rt="kaa.echo";ct=50' in response.payload.split(b",")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("rt=kaa.echo", {"/kp1/app_v1/echo", "/kp1/app_v2/echo"}),
        ("rt=kaa.e*", {"/kp1/app_v1/echo", "/kp1/app_v2/echo"}),
        ("href=/kp1/app_v2/*", {"/kp1/app_v2/echo"}),
        ("href=/kp1/app_v2/echo", {"/kp1/app_v2/echo"}),
        ("rt=kaa.echo&href=/kp1/app_v1*", {"/kp1/app_v1/echo"}),
        ("rt=kaa", set()),
        ("if=sensor", set()),
    ],
)
async def test_clients_filter_the_links(
    client: aiocoap.Context, server: RunningCoapServer, query: str, found: set[str]
) -> None:
    """RFC 6690 section 4.1."""
    uri = f"{server.uri}/.well-known/core?{query}"
    response = await ask(client, uri, code=Code.GET)
    listed = {link.partition(b">")[0].decode().strip("<") for link in response.payload.split(b",") if link}
    assert listed == found
    assert (await coap_client(uri)).rstrip(b"\n") == response.payload


async def test_aiocoap_validates_what_it_has(client: aiocoap.Context, server: RunningCoapServer) -> None:
    """RFC 7252 section 5.10.6.2: 2.03 for the ETag of the same body, 2.05 for another one."""
    uri = f"{server.uri}/kp1/app_v1/echo/token/json"
    first = await ask(client, uri, b"a much longer value", code=Code.FETCH)
    assert (first.code, len(first.opt.etag)) == (Code.CONTENT, 4)
    again = await ask(client, uri, b"a much longer value", code=Code.FETCH, etags=[b"other", first.opt.etag])
    assert (again.code, again.payload, again.opt.etag) == (Code.VALID, b"", first.opt.etag)
    changed = await ask(client, uri, b"another longer value", code=Code.FETCH, etags=[first.opt.etag])
    assert (changed.code, changed.payload) == (Code.CONTENT, b"another longer value")
    short = await ask(client, uri, b"short", code=Code.FETCH)
    assert (short.payload, short.opt.etag) == (b"short", None)
    links = await ask(client, f"{server.uri}/.well-known/core", code=Code.GET)
    kept = await ask(client, f"{server.uri}/.well-known/core", code=Code.GET, etags=[links.opt.etag])
    assert (kept.code, kept.payload) == (Code.VALID, b"")


async def test_a_large_body_is_validated(client: aiocoap.Context, server: RunningCoapServer) -> None:
    uri = f"{server.uri}/kp1/app_v1/echo/token/json"
    first = await ask(client, uri, LARGE, code=Code.FETCH)
    assert first.payload == LARGE
    again = await ask(client, uri, LARGE, code=Code.FETCH, etags=[first.opt.etag])
    assert (again.code, again.payload) == (Code.VALID, b"")


@pytest.mark.parametrize("method", ["delete", "patch", "ipatch"])
async def test_libcoap_uses_no_other_method(server: RunningCoapServer, method: str) -> None:
    answer = await coap_client("-m", method, "-e", "x", f"{server.uri}/kp1/app_v1/echo/token/json")
    assert answer.startswith(b"4.05")


@pytest.mark.parametrize("number", ["1", "5"])
async def test_libcoap_makes_no_condition(server: RunningCoapServer, number: str) -> None:
    """If-Match and If-None-Match are critical: a gateway that cannot check them must not ignore them."""
    answer = await coap_client(
        "-m", "put", "-O", f"{number},", "-e", "x", f"{server.uri}/kp1/app_v1/echo/token/json"
    )
    assert answer.startswith(b"4.02")


async def test_errors_of_extension_and_gateway(client: aiocoap.Context, server: RunningCoapServer) -> None:
    response = await ask(client, f"{server.uri}/kp1/app_v1/echo/token/status/404")
    assert response.code == Code.NOT_FOUND
    response = await ask(client, f"{server.uri}/kp1/app_v1/dcx/token/json")
    assert response.code == Code.SERVICE_UNAVAILABLE
    assert response.opt.max_age == 1
    assert response.payload == b"No replica of the extension is running"


async def test_aiocoap_observes_pushes(
    client: aiocoap.Context, server: RunningCoapServer, nats_server: NatsServer
) -> None:
    async with Cluster(nats_server.url) as cluster:
        uri = f"{server.uri}/kp1/app_v1/echo/device-1/config/json"
        request = client.request(aiocoap.Message(code=Code.GET, uri=uri, observe=0))
        first = await asyncio.wait_for(request.response, CLIENT_TIMEOUT_S)
        assert first.opt.observe is not None
        seen: list[aiocoap.Message] = []

        async def collect() -> None:
            async for notification in request.observation:
                seen.append(notification)  # noqa: PERF401 - each as it comes

        collecting = asyncio.create_task(collect())
        bodies = [b"one", LARGE[:3000], b"three"]
        for number, body in enumerate(bodies, 1):
            await cluster.push("device-1", body, extensionInstanceName="echo", resourcePath="/config/json")
            await until(
                functools.partial(lambda count: len(seen) == count, number), f"{number} notifications"
            )
        await cluster.push("device-1", b"other", extensionInstanceName="echo", resourcePath="/config")
        assert [message.payload for message in seen] == bodies
        sequences = [first.opt.observe] + [message.opt.observe for message in seen]
        assert sequences == sorted(set(sequences))
        assert server.presence.present == {"device-1"}
        assert server.count("dropped", "no_session") == 1
        collecting.cancel()


async def test_libcoap_posts(server: RunningCoapServer) -> None:
    output = await coap_client("-m", "post", "-e", "hello", f"{server.uri}/kp1/app_v1/echo/token/json")
    assert output.strip() == b"hello"


async def test_libcoap_separate_response(server: RunningCoapServer) -> None:
    output = await coap_client("-m", "post", "-e", "hello", f"{server.uri}/kp1/app_v1/slow/token/json")
    assert output.strip() == b"hello"
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")


async def test_libcoap_non_confirmable(server: RunningCoapServer) -> None:
    output = await coap_client("-N", "-m", "put", "-e", "hello", f"{server.uri}/kp1/app_v1/slow/token/json")
    assert output.strip() == b"hello"


@pytest.mark.parametrize("size", [64, 1024])
async def test_libcoap_blocks(server: RunningCoapServer, size: int) -> None:
    payload = "".join(chr(97 + i % 26) for i in range(5000))
    output = await coap_client(
        "-b", str(size), "-m", "post", "-e", payload, f"{server.uri}/kp1/app_v1/echo/token/json"
    )
    assert output.strip() == payload.encode()


async def test_libcoap_observes_pushes(server: RunningCoapServer, nats_server: NatsServer) -> None:
    async with Cluster(nats_server.url) as cluster:
        watching = asyncio.create_task(
            coap_client("-s", "3", "-m", "get", f"{server.uri}/kp1/app_v1/echo/device-2/config/json")
        )
        await until(lambda: server.tables["observers"] == 1, "the registration")
        for body in (b"<one>", b"<two>"):
            await cluster.push("device-2", body, extensionInstanceName="echo", resourcePath="/config/json")
        output = await watching
        assert re.findall(rb"<\w+>", output) == [b"<one>", b"<two>"]
        assert server.tables["observers"] == 0


async def test_aiocoap_waits_for_a_push(
    server: RunningCoapServer, nats_server: NatsServer, client: aiocoap.Context
) -> None:
    """The resource path is in Location-Path. Without a push, it is 2.03 at the end."""
    uri = f"{server.uri}/kp1/app_v1/echo/device-2/config?wait="
    async with Cluster(nats_server.url) as cluster:
        waiting = asyncio.create_task(ask(client, uri + "20"))
        await until(lambda: server.tables["waits"] == 1, "the request to wait")
        await cluster.push("device-2", LARGE, extensionInstanceName="echo", resourcePath="/config/json")
        response = await waiting
        assert (response.code, response.payload) == (Code.CHANGED, LARGE)
        assert response.opt.location_path == ("config", "json")
        nothing = await ask(client, uri + "1", code=Code.GET)
        assert (nothing.code, nothing.payload, nothing.opt.location_path) == (Code.VALID, b"", ())


async def test_libcoap_waits_for_a_push(server: RunningCoapServer, nats_server: NatsServer) -> None:
    uri = f"{server.uri}/kp1/app_v1/echo/device-2/config?wait="
    async with Cluster(nats_server.url) as cluster:
        waiting = asyncio.create_task(coap_client("-v", "6", "-B", "30", "-m", "post", uri + "20"))
        await until(lambda: server.tables["waits"] == 1, "the request to wait")
        await cluster.push("device-2", b"<pushed>", extensionInstanceName="echo", resourcePath="/config/json")
        output = await waiting
        assert b"<pushed>" in output
        assert b"Location-Path:config, Location-Path:json" in output
        assert b"c:2.03" in await coap_client("-v", "6", "-m", "post", uri + "1")
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgements")
