"""Requests that wait for several pushes: `wait` and `batch` in the query of a POST.

Source: docs/devices.md, "Several pushes in one response".
"""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.support.esp import until
from tests.support.http_gateway import HttpGateway, RawClient, post, running_gateway
from tests.support.nats import NatsServer
from tests.support.waiting import PATH, dropped, present, push, wait_for_push


@pytest.fixture
async def gateway(shared_nats: NatsServer) -> AsyncIterator[HttpGateway]:
    async with running_gateway(shared_nats, max_wait=20) as found:
        yield found


@pytest.fixture
async def client(gateway: HttpGateway) -> AsyncIterator[RawClient]:
    async with await gateway.client() as found:
        yield found


async def test_pushes_come_in_one_response_in_order(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client, "wait=20&batch=3")
    await push(gateway, "/command/1", b"one")
    await push(gateway, "/command/2", b'{"two": 2}', status=201, phrase="Made")
    await push(gateway, "/other", b"not for it")
    await push(gateway, "/command", b"\xff\x00")
    reply = await client.reply()
    assert (reply.status, reply.fields["Content-Type"]) == (200, "application/json")
    assert "Kaa-Resource-Path" not in reply.fields
    assert json.loads(reply.body) == [
        {"resourcePath": "/command/1", "statusCode": 200, "payload": "one"},
        {"resourcePath": "/command/2", "statusCode": 201, "reasonPhrase": "Made", "payload": '{"two": 2}'},
        {"resourcePath": "/command", "statusCode": 200, "payloadBase64": "/wA="},
    ]
    assert present(gateway) == 1


async def test_it_does_not_wait_long_for_more(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client, "wait=20&batch=1000")
    await push(gateway, payload=b"one")
    reply = await client.reply()
    assert [each["payload"] for each in json.loads(reply.body)] == ["one"]
    await push(gateway)
    await dropped(gateway, 1)


async def test_a_large_push_ends_the_batch(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client, "wait=20&batch=1000")
    for _ in range(3):
        await push(gateway, payload=b"x" * 40_000)
    reply = await client.reply()
    assert [len(each["payload"]) for each in json.loads(reply.body)] == [40_000, 40_000]
    await dropped(gateway, 1)


async def test_without_a_push_it_is_204(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client, "batch=2&wait=1")
    assert (await client.reply()).status == 204
    await wait_for_push(gateway, client, "wait=20&batch=1")  # the connection goes on
    await push(gateway)
    assert len(json.loads((await client.reply()).body)) == 1


@pytest.mark.parametrize("batch", ["0", "1001", "", "-1", "x", "999999"])
async def test_a_bad_number_is_refused(gateway: HttpGateway, client: RawClient, batch: str) -> None:
    await client.send(post(f"{PATH}?wait=5&batch={batch}"))
    assert (await client.reply()).status == 400
    assert gateway.counted("refused", "http_batch") == 1


async def test_a_drain_answers_with_what_has_come(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats) as gateway, await gateway.client() as client:
        await wait_for_push(gateway, client, "wait=200&batch=1000")
        await push(gateway, payload=b"one")
        stopping = asyncio.create_task(gateway.worker.stop())
        reply = await client.reply()
        assert [each["payload"] for each in json.loads(reply.body)] == ["one"]
        await stopping


async def test_the_end_of_the_connection_ends_it(gateway: HttpGateway) -> None:
    """The pushes that have come are lost; the timer has nobody to answer."""
    async with await gateway.client() as client:
        await wait_for_push(gateway, client, "wait=20&batch=1000")
        await push(gateway)
    await until(lambda: present(gateway) == 1, "the wait to end")
    async with await gateway.client() as client:
        await wait_for_push(gateway, client, "wait=20&batch=1")
        await push(gateway, payload=b"later")
        [later] = json.loads((await client.reply()).body)
        assert later["payload"] == "later"
