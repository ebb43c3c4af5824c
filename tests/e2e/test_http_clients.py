"""HTTP as devices and operators use it: httpx and curl, through the gateway to an extension made with the SDK."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request
from kaa_ext.services import echo

from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST, NatsServer

CONCURRENT = 200


@pytest_asyncio.fixture
async def base_url(shared_nats: NatsServer, shared_gateway: GatewayProcess) -> AsyncIterator[str]:
    """The URL of the application version, while the extension `echo` runs."""
    extension = Extension("echo", nats_urls=(shared_nats.url,))
    echo.register(extension)
    async with extension:
        yield f"http://{HOST}:{shared_gateway.http_port}/kp1/app_v1"


async def curl(*arguments: str) -> list[str]:
    """What curl prints: the body, then the status and how many connections it made, on a line each."""
    path = shutil.which("curl")
    assert path is not None, "curl is needed: it is the client that most people try first"
    process = await asyncio.create_subprocess_exec(
        path, "--silent", "--max-time", "20", "--write-out", "\n%{http_code} %{num_connects}\n", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().splitlines()


async def test_httpx(base_url: str, new_token: Callable[[], str]) -> None:
    url = f"{base_url}/echo/{new_token()}"
    async with httpx.AsyncClient(timeout=20) as client:
        for body in (b"", b"[1]", bytes(500_000)):
            response = await client.post(f"{url}/json", content=body)
            assert (response.status_code, response.content) == (200, body)
        refused = await client.post(f"{url}/status/409/1", content=b'{"a":1}')
        assert (refused.status_code, refused.json()) == (409, {"a": 1})
        failed = await client.post(f"{url}/status/nonsense/1")
        assert (failed.status_code, failed.json()["statusCode"]) == (400, 400)
        assert (await client.get(url)).status_code == 405
        assert (await client.post(f"{base_url}/nope/token")).status_code == 404


async def test_httpx_streams_a_body_of_unknown_length(base_url: str, new_token: Callable[[], str]) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"[1,", b"2]"):
            yield part
            await asyncio.sleep(0.01)

    async with httpx.AsyncClient(timeout=20) as client:
        response = await client.post(f"{base_url}/echo/{new_token()}", content=parts())
        assert response.content == b"[1,2]"


async def test_many_clients_each_get_their_own_answer(base_url: str, new_token: Callable[[], str]) -> None:
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        tokens = [new_token() for _ in range(CONCURRENT)]
        responses = await asyncio.gather(
            *(client.post(f"{base_url}/echo/{token}/json", content=token.encode()) for token in tokens)
        )
    assert [response.text for response in responses] == tokens


async def test_curl(base_url: str, new_token: Callable[[], str]) -> None:
    url = f"{base_url}/echo/{new_token()}/json"
    assert await curl("--data", "[1]", url) == ["[1]", "200 1"]
    assert await curl("--http1.0", "--data", "[1]", url) == ["[1]", "200 1"]
    assert await curl("--header", "Transfer-Encoding: chunked", "--data", "[1]", url) == ["[1]", "200 1"]
    assert await curl("--http2", "--data", "[1]", url) == ["[1]", "200 1"], "an upgrade is ignored"
    body, status = await curl(url)
    assert (json.loads(body)["statusCode"], status) == (405, "405 1")


async def test_curl_expects_100_continue_for_a_large_body(
    base_url: str, new_token: Callable[[], str]
) -> None:
    url = f"{base_url}/echo/{new_token()}"
    body = "a" * 1_000_000
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--include", "--max-time", "20", "--header", "Expect: 100-continue", "--data", "@-", url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate(body.encode())
    assert output.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert output.endswith(b"\r\n\r\n" + body.encode())


async def test_curl_keeps_its_connection(base_url: str, new_token: Callable[[], str]) -> None:
    url = f"{base_url}/echo/{new_token()}"
    assert await curl("--data", "a", url, url) == ["a", "200 1", "a", "200 0"]


async def test_a_device_waits_for_its_commands_with_curl(
    shared_nats: NatsServer, shared_gateway: GatewayProcess, new_token: Callable[[], str]
) -> None:
    """A push answers the device that waits; its extension is told that it was sent."""
    token = new_token()
    extension = Extension("dcx", nats_urls=(shared_nats.url,))
    asked = asyncio.Event()

    @extension.handler("*")
    async def note(request: Request) -> None:
        assert request.request_id is None
        assert request.deadline is not None
        asked.set()

    async with extension:
        url = f"http://{HOST}:{shared_gateway.http_port}/kp1/app_v1/dcx/{token}/command?wait=15"
        waiting = asyncio.create_task(curl("--include", "--request", "POST", url))
        await asyncio.wait_for(asked.wait(), 30)
        receipt = await extension.push(token, "/command/reboot", b"[1]", receipt=True)
        assert (await receipt.outcome(30)).status == "sent"
        lines = await waiting
        assert "Kaa-Resource-Path: /command/reboot" in lines
        assert lines[-2:] == ["[1]", "200 1"]
        async with httpx.AsyncClient(timeout=20) as client:
            nothing = await client.post(url.replace("wait=15", "wait=1"))
            assert (nothing.status_code, nothing.content) == (204, b"")


@pytest_asyncio.fixture
async def pushing(shared_nats: NatsServer) -> AsyncIterator[tuple[Extension, asyncio.Event]]:
    """An extension that takes all messages, and what is set when it has one."""
    extension = Extension("dcx", nats_urls=(shared_nats.url,))
    asked = asyncio.Event()

    @extension.handler("*")
    async def note(request: Request) -> None:
        asked.set()

    async with extension:
        yield extension, asked


async def test_curl_gets_several_pushes_in_one_response(
    pushing: tuple[Extension, asyncio.Event], shared_gateway: GatewayProcess, new_token: Callable[[], str]
) -> None:
    extension, asked = pushing
    token = new_token()
    url = f"http://{HOST}:{shared_gateway.http_port}/kp1/app_v1/dcx/{token}/command?wait=15&batch=2"
    waiting = asyncio.create_task(curl("--request", "POST", url))
    await asyncio.wait_for(asked.wait(), 30)
    receipts = [
        await extension.push(token, f"/command/{name}", b"[1]", receipt=True) for name in ("reboot", "beep")
    ]
    body, _ = await waiting
    assert [each["resourcePath"] for each in json.loads(body)] == ["/command/reboot", "/command/beep"]
    assert [(await receipt.outcome(30)).status for receipt in receipts] == ["sent", "sent"]


async def test_a_dashboard_gets_events_with_httpx_sse(
    pushing: tuple[Extension, asyncio.Event], shared_gateway: GatewayProcess, new_token: Callable[[], str]
) -> None:
    httpx_sse = pytest.importorskip("httpx_sse", reason="needs the package httpx-sse")
    extension, asked = pushing
    token = new_token()
    url = f"http://{HOST}:{shared_gateway.http_port}/kp1/app_v1/dcx/{token}/command"
    async with (
        httpx.AsyncClient(timeout=30) as client,
        httpx_sse.aconnect_sse(client, "GET", url) as source,
    ):
        source.response.raise_for_status()
        await asyncio.wait_for(asked.wait(), 30)
        # It shows what has no data too, which the standard does not: the time after which to connect again.
        events = (event async for event in source.aiter_sse() if event.data)
        for number in range(3):
            receipt = await extension.push(token, f"/command/{number}", b"[1]", receipt=True)
            event = await asyncio.wait_for(anext(events), 30)
            assert (event.event, event.json()["resourcePath"]) == ("message", f"/command/{number}")
            assert event.id
            assert (await receipt.outcome(30)).status == "sent"


async def test_curl_shows_events(
    pushing: tuple[Extension, asyncio.Event], shared_gateway: GatewayProcess, new_token: Callable[[], str]
) -> None:
    extension, asked = pushing
    token = new_token()
    url = f"http://{HOST}:{shared_gateway.http_port}/kp1/app_v1/dcx/{token}/command?wait=3"
    waiting = asyncio.create_task(curl("--no-buffer", "--header", "Accept: text/event-stream", url))
    await asyncio.wait_for(asked.wait(), 30)
    await extension.push(token, "/command/reboot", b"[1]")
    lines = await waiting
    assert lines[:2] == ["retry: 1000", ""]
    [data] = [line for line in lines if line.startswith("data: ")]
    assert json.loads(data.removeprefix("data: "))["resourcePath"] == "/command/reboot"
    assert lines[-1] == "200 1"
