"""Server-Sent Events: a request that accepts text/event-stream gets each push as an event.

Source: docs/devices.md, "Server-Sent Events"; HTML Living Standard section 9.2.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from kaa_gateway.config.keys import Limits
from kaa_gateway.kp.revocation import Revocation

from tests.support.esp import until
from tests.support.http_gateway import HttpGateway, RawClient, post, running_gateway
from tests.support.nats import NatsServer
from tests.support.slices import finished
from tests.support.waiting import PATH, dropped, present, push, send_and_wait

PAGE = "https://app.example.com"
WAIT_S = 30.0


@pytest.fixture
async def gateway(shared_nats: NatsServer) -> AsyncIterator[HttpGateway]:
    async with running_gateway(shared_nats, max_wait=40, allowed_origins=(PAGE,)) as found:
        yield found


@pytest.fixture
async def client(gateway: HttpGateway) -> AsyncIterator[RawClient]:
    async with await gateway.client() as found:
        yield found


def get(path: str = PATH, fields: str = "", version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: gateway\r\nAccept: text/event-stream\r\n{fields}\r\n".encode()


async def block(client: RawClient) -> dict[str, str]:
    """Return the fields of the next event or comment."""
    async with asyncio.timeout(WAIT_S):
        text = (await client.reader.readuntil(b"\n\n")).decode()
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        fields[name] = value
    return {name: value for name, value in fields.items() if name}


async def begin(gateway: HttpGateway, client: RawClient, request: bytes | None = None) -> dict[str, str]:
    """Begin a stream; return the header of its response."""
    await send_and_wait(gateway, client, get() if request is None else request)
    reply = await client.reply()
    assert (reply.status, reply.fields["Content-Type"]) == (200, "text/event-stream")
    assert await block(client) == {"retry": "1000"}
    return reply.fields


@pytest.mark.parametrize(
    "request_bytes",
    [
        get(),
        get(version="1.0"),
        get().replace(b"Accept: text/event-stream", b"ACCEPT: application/json,Text/Event-Stream"),
        get(f"{PATH}?wait=30"),
        post(PATH, b"hello", "Accept: text/event-stream\r\n"),
    ],
    ids=["get", "1.0", "list", "wait", "post"],
)
async def test_pushes_are_events_in_order(
    gateway: HttpGateway, client: RawClient, request_bytes: bytes
) -> None:
    fields = await begin(gateway, client, request_bytes)
    assert fields["Cache-Control"] == "no-store"
    assert fields["Connection"] == "close"
    assert "Content-Length" not in fields
    for number in range(20):
        await push(gateway, f"/command/{number}", b'{"text":\n"a\r\nb"}', push_id=f"push-{number}")
    for number in range(20):
        event = await block(client)
        assert set(event) == {"id", "data"}
        assert event["id"] == f"push-{number}"
        assert json.loads(event["data"]) == {
            "resourcePath": f"/command/{number}",
            "statusCode": 200,
            "payload": '{"text":\n"a\r\nb"}',
        }
    assert present(gateway) == 2


async def test_pushes_for_other_paths_are_none_of_its_events(gateway: HttpGateway, client: RawClient) -> None:
    await begin(gateway, client)
    await push(gateway, "/commands")
    await push(gateway, endpoint_id="other")
    await push(gateway, extension="tsx")
    await push(gateway, payload=b"mine")
    assert json.loads((await block(client))["data"])["payload"] == "mine"


@pytest.mark.parametrize("push_id", ["a\nevent: x", "a b", "x" * 129, "\u00fc"])
async def test_an_id_that_could_break_an_event_is_left_out(
    gateway: HttpGateway, client: RawClient, push_id: str
) -> None:
    await begin(gateway, client)
    await push(gateway, "/command/\n\ndata: x", push_id=push_id)
    event = await block(client)
    assert set(event) == {"data"}
    assert json.loads(event["data"])["resourcePath"] == "/command/\n\ndata: x"


async def test_the_extension_sees_how_long_it_lasts_and_it_ends_then(
    gateway: HttpGateway, client: RawClient
) -> None:
    """Without `wait` it lasts for max-wait."""
    await client.send(get(f"{PATH}?wait=1"))
    request, _ = await gateway.extension.request()
    assert (request.payload, request.request_id, request.timeout) == (b"", None, 1000)
    assert (await client.reply()).status == 200
    assert await client.rest() == b"retry: 1000\n\n"
    await until(lambda: present(gateway) == 1, "the stream to end")
    async with await gateway.client() as other:
        await other.send(get())
        request, _ = await gateway.extension.request()
        assert request.timeout == 40_000


@pytest.mark.slow  # 15 s
async def test_a_comment_is_sent_when_there_are_no_events(gateway: HttpGateway, client: RawClient) -> None:
    await begin(gateway, client)
    assert await block(client) == {":": ""}


async def test_an_answer_of_the_extension_is_an_event_of_another_name(
    gateway: HttpGateway, client: RawClient
) -> None:
    await client.send(get())
    request = await gateway.extension.request()
    assert (await client.reply()).status == 200
    assert await block(client) == {"retry": "1000"}
    await gateway.extension.answer(request, b"[]")
    event = await block(client)
    assert event["event"] == "answer"
    assert json.loads(event["data"])["payload"] == "[]"
    await push(gateway)
    assert "event" not in await block(client)


async def test_an_error_of_the_extension_ends_it(gateway: HttpGateway, client: RawClient) -> None:
    await client.send(get())
    request = await gateway.extension.request()
    assert (await client.reply()).status == 200
    assert await block(client) == {"retry": "1000"}
    await gateway.extension.answer(request, b"", 409, "Not now")
    event = await block(client)
    assert event["event"] == "answer"
    assert json.loads(event["data"])["reasonPhrase"] == "Not now"
    assert await client.rest() == b""
    await until(lambda: present(gateway) == 1, "the stream to end")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{PATH}?wait=0", 400),
        ("/kp1/app-v1/tsx/time", 400),
        ("/kp1/app-v1/absent/token/x", 503),
        ("/kp1/app-v1/unknown/token/x", 404),
        ("/elsewhere", 404),
    ],
)
async def test_what_the_gateway_refuses_is_no_stream(
    gateway: HttpGateway, client: RawClient, path: str, status: int
) -> None:
    await client.send(get(path))
    reply = await client.reply()
    assert reply.status == status
    assert reply.fields["Connection"] == "close"
    assert await client.rest() == b""


async def test_get_without_events_is_refused(gateway: HttpGateway, client: RawClient) -> None:
    await client.send(get().replace(b"text/event-stream", b"*/*"))
    assert (await client.reply()).status == 405


async def test_a_stream_does_not_follow_an_open_request(gateway: HttpGateway, client: RawClient) -> None:
    await client.send(post(PATH, b"first") + get())
    await gateway.extension.answer(await gateway.extension.request(), b"answered")
    assert (await client.reply()).body == b"answered"
    assert (await client.reply()).status == 400


async def test_what_follows_a_stream_is_not_read(gateway: HttpGateway, client: RawClient) -> None:
    await begin(gateway, client, get() + post(PATH, b"smuggled"))
    await client.send(post(PATH, b"smuggled"))
    await push(gateway, payload=b"mine")
    assert json.loads((await block(client))["data"])["payload"] == "mine"
    assert gateway.extension.requests.empty()


async def test_the_end_of_the_client_ends_it(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await begin(gateway, client)
    await until(lambda: present(gateway) == 1, "the stream to end")
    await push(gateway)
    await dropped(gateway, 1)


async def test_a_drain_ends_it(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats) as gateway, await gateway.client() as client:
        await begin(gateway, client)
        stopping = asyncio.create_task(gateway.worker.stop())
        assert await client.rest() == b""
        await stopping


async def test_a_client_that_does_not_read_is_cut(shared_nats: NatsServer) -> None:
    """What the gateway keeps for it is bounded by `output-buffer`."""
    async with (
        running_gateway(shared_nats, limits=Limits(output_buffer=200_000)) as gateway,
        await gateway.client() as client,
        await gateway.client() as reader,
    ):
        await begin(gateway, client)
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(WAIT_S):
            while not gateway.counted("closed", "slow_reader"):
                await push(gateway, payload=b"x" * 100_000)
        await until(lambda: present(gateway) == 1, "the stream to end")
        await begin(gateway, reader)
        await push(gateway, payload=b"mine")
        assert json.loads((await block(reader))["data"])["payload"] == "mine"


async def test_a_page_of_another_origin(gateway: HttpGateway, client: RawClient) -> None:
    fields = await begin(gateway, client, get(fields=f"Origin: {PAGE}\r\nLast-Event-ID: push-1\r\n"))
    assert fields["Access-Control-Allow-Origin"] == PAGE
    async with await gateway.client() as other:
        await other.send(get(fields="Origin: https://evil.example.com\r\n"))
        assert "Access-Control-Allow-Origin" not in (await other.reply()).fields


async def test_a_revoked_token_ends_the_stream_at_once(gateway: HttpGateway, client: RawClient) -> None:
    await begin(gateway, client)
    assert (
        finished(
            Revocation(gateway.worker.sessions).revoke_tokens("token", frozenset({b"app-v1"}), frozenset())
        )
        == 1
    )
    async with asyncio.timeout(WAIT_S):
        assert await client.reader.read() == b""
