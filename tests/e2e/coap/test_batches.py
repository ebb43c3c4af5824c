"""CoAP requests that wait for several pushes: `wait` and `batch` in the query.

Source: docs/coap.md, "Wait for a push".
"""

import asyncio
import json
from collections.abc import AsyncIterator

import aiocoap
import pytest
from aiocoap.numbers.codes import Code
from kaa_ext import Extension
from kaa_ext.sdk.push_outcome import PushOutcome
from kaa_gateway.wire.coap import Message
from nats.aio.client import Client

from tests.e2e.coap.test_waiting import Platform
from tests.support.coap import (
    ACK,
    CON,
    GET,
    NON,
    POST,
    URI_QUERY,
    CoapClient,
    RunningCoapServer,
    coap_server,
    uint,
)
from tests.support.esp import until
from tests.support.nats import NatsServer

PATH = "kp1/app_v1/dcx/token/command"
CHANGED, CONTENT, VALID, BAD_REQUEST, NOT_ACCEPTABLE = 0x44, 0x45, 0x43, 0x80, 0x86
CONTENT_FORMAT, ACCEPT = 12, 17
JSON, CBOR = 50, 60
CLIENT_TIMEOUT_S = 60.0
BODY = bytes(600)
"""So long that the response may be long too: the address is not verified."""


@pytest.fixture
async def platform(shared_nats: NatsServer) -> AsyncIterator[Platform]:
    nats = Client()
    await nats.connect(shared_nats.url)
    extension = Extension("dcx", nats_urls=(shared_nats.url,))
    found = Platform(nats, extension)
    async with extension:
        yield found
    await nats.close()


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[RunningCoapServer]:
    async with coap_server(shared_nats.url) as server:
        yield server


@pytest.fixture
async def client(server: RunningCoapServer) -> AsyncIterator[CoapClient]:
    async with CoapClient(server.port) as client:
        yield client


async def begin(client: CoapClient, server: RunningCoapServer, batch: str, **changes: object) -> Message:
    """Send a request, and return it when it waits and is acknowledged."""
    queries = ((URI_QUERY, b"wait=20"), (URI_QUERY, b"batch=" + batch.encode()))
    request = client.request(PATH, BODY, *queries, **changes)  # type: ignore[arg-type]
    client.send(request)
    await until(lambda: server.tables["waits"] == 1, "the request to wait")
    if request.type == CON:
        assert (await client.receive()).type == ACK
    return request


@pytest.mark.parametrize(
    ("method", "kind", "code"), [(POST, CON, CHANGED), (GET, CON, CONTENT), (POST, NON, CHANGED)]
)
async def test_pushes_come_in_one_response_in_order(
    server: RunningCoapServer, client: CoapClient, platform: Platform, method: int, kind: int, code: int
) -> None:
    request = await begin(client, server, "3", method=method, kind=kind)
    await platform.push("/command/1", b"one")
    await platform.push("/other", b"not for it")
    await platform.push("/command/2", b"two", status=201)
    await platform.push("/command", b"\xff\x00")
    response = await client.receive()
    assert (response.type, response.code, response.token) == (kind, code, request.token)
    assert (CONTENT_FORMAT, uint(JSON)) in response.options
    assert json.loads(response.payload) == [
        {"resourcePath": "/command/1", "statusCode": 200, "payload": "one"},
        {"resourcePath": "/command/2", "statusCode": 201, "payload": "two"},
        {"resourcePath": "/command", "statusCode": 200, "payloadBase64": "/wA="},
    ]
    assert server.tables["waits"] == 0
    assert not server.presence.present


async def test_it_does_not_wait_long_for_more(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server, "1000")
    await platform.push(payload=b"one")
    assert [each["payload"] for each in json.loads((await client.receive()).payload)] == ["one"]


async def test_without_a_push_it_is_2_03(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server, "16")
    await server.put_forward(22)
    response = await client.receive()
    assert (response.code, response.payload) == (VALID, b"")


async def push_one(server: RunningCoapServer, platform: Platform) -> None:
    """Push `one`, and return when the gateway has it."""
    before = server.link.messages_received
    await platform.push(payload=b"one")
    await until(lambda: server.link.messages_received > before, "the push")


async def test_a_drain_answers_with_what_has_come(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server, "16")
    await push_one(server, platform)
    server.core.begin_drain()
    assert [each["payload"] for each in json.loads((await client.receive()).payload)] == ["one"]


async def test_the_end_of_the_peer_answers_with_what_has_come(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server, "16")
    await push_one(server, platform)
    [session] = [server.sessions.at(slot) for slot in range(server.sessions.slot_count())]
    assert session is not None
    session.disconnect("revoked")
    assert [each["payload"] for each in json.loads((await client.receive()).payload)] == ["one"]
    assert server.tables["waits"] == 0


@pytest.mark.parametrize("batch", ["0", "1001", "", "-1", "x", "999999"])
async def test_a_bad_number_is_refused(server: RunningCoapServer, client: CoapClient, batch: str) -> None:
    queries = ((URI_QUERY, b"wait=5"), (URI_QUERY, b"batch=" + batch.encode()))
    assert (await client.ask(client.request(PATH, b"", *queries))).code == BAD_REQUEST
    assert server.count("refused", "coap_batch") == 1


async def test_it_is_json_and_nothing_else(server: RunningCoapServer, client: CoapClient) -> None:
    options = ((URI_QUERY, b"wait=5"), (URI_QUERY, b"batch=2"), (ACCEPT, uint(CBOR)))
    assert (await client.ask(client.request(PATH, b"", *options))).code == NOT_ACCEPTABLE


async def test_each_push_has_its_receipt(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    """The acknowledgement of the response is that of all pushes in it."""
    await begin(client, server, "2")
    receipts = [
        await platform.extension.push("token", "/command", payload, receipt=True) for payload in (b"1", b"2")
    ]
    response = await client.receive()
    for receipt in receipts:
        while (outcome := await receipt.outcome(0.01)).status != "accepted":
            assert outcome.status == "unknown"
    client.acknowledge(response)
    for receipt in receipts:
        assert await receipt.outcome(CLIENT_TIMEOUT_S) == PushOutcome("delivered")


async def test_aiocoap_fetches_a_large_batch_in_blocks(server: RunningCoapServer, platform: Platform) -> None:
    context = await aiocoap.Context.create_client_context(transports=["simple6"])
    message = aiocoap.Message(code=Code.POST, uri=f"{server.uri}/{PATH}?wait=20&batch=3")
    waiting = asyncio.create_task(asyncio.wait_for(context.request(message).response, CLIENT_TIMEOUT_S))
    await until(lambda: server.tables["waits"] == 1, "the request to wait")
    for number in range(3):
        await platform.push(f"/command/{number}", b"x" * 3000)
    response = await waiting
    assert (response.code, response.opt.content_format) == (Code.CHANGED, JSON)
    pushes = json.loads(response.payload)
    assert [each["resourcePath"] for each in pushes] == ["/command/0", "/command/1", "/command/2"]
    assert {each["payload"] for each in pushes} == {"x" * 3000}
    await context.shutdown()
