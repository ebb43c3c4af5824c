"""Blockwise transfers, block by block, and the bounds of what is kept for them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from kaa_gateway.wire.coap import Message

from tests.support.cluster import Cluster
from tests.support.coap import (
    ACK,
    BLOCK1,
    BLOCK2,
    GET,
    CoapClient,
    RunningCoapServer,
    block,
    coap_server,
    option,
    uint,
)
from tests.support.nats import NatsServer

PATH = "kp1/app_v1/dcx/token/json"
ETAG, SIZE2, SIZE1, REQUEST_TAG = 4, 28, 60, 292
CONTINUE, INCOMPLETE, TOO_LARGE, UNAVAILABLE = 0x5F, 0x88, 0x8D, 0xA3
BODY = bytes(range(256)) * 5
BODY_LIFETIME = 93
PADDING = bytes(200)
"""Makes a request so large that its answer need not be cut for a peer whose address is not proved."""
SZX_MAX = 6
BODIES_MAX = 4
"""A place for each KiB of memory."""


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[RunningCoapServer]:
    settings: dict[str, Any] = {"max_body_size": 2048, "block_memory": 4096, "piggyback_delay": 3600.0}
    async with coap_server(shared_nats.url, **settings) as server:
        yield server


@pytest.fixture
async def client(server: RunningCoapServer) -> AsyncIterator[CoapClient]:
    async with CoapClient(server.port) as client:
        yield client


async def send_block(
    client: CoapClient,
    number: int,
    more: bool,
    szx: int,
    body: bytes = BODY,
    path: str = PATH,
    tag: bytes = b"",
) -> Message:
    """Send a block of a body; the answer to it."""
    size = 16 << szx
    tags = [(REQUEST_TAG, tag)] if tag else []
    part = body[number * size : (number + 1) * size]
    return await client.post(path, part, (BLOCK1, block(number, more, szx)), *tags)


async def large_answer(cluster: Cluster, client: CoapClient, *options: tuple[int, bytes]) -> Message:
    """The first block of a response of BODY."""
    count = len(cluster.requests)
    client.send(client.request(PATH, PADDING, *options))
    (request,) = await cluster.next_requests(1, after=count)
    await cluster.answer(request, BODY)
    return await client.receive()


async def test_a_body_in_blocks_is_forwarded_once_and_whole(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    for number in range(2):
        answer = await send_block(client, number, True, 5)
        assert (answer.type, answer.code) == (ACK, CONTINUE)
        assert option(answer, BLOCK1) == block(number, True, 5)
    assert not cluster.requests
    last = client.request(PATH, BODY[1024:], (BLOCK1, block(2, False, 5)))
    last = last._replace(payload=BODY[1024:1280])
    client.send(last)
    request = await cluster.request()
    assert request.fields["payload"] == BODY
    await cluster.answer(request, b"done")
    answer = await client.receive()
    assert (answer.code, answer.payload, option(answer, BLOCK1)) == (0x44, b"done", block(2, False, 5))
    assert server.tables["requests"] == 0
    assert await client.ask(last) == answer
    assert len(cluster.requests) == 1


async def test_a_smaller_block_size_on_the_way(cluster: Cluster, client: CoapClient) -> None:
    assert (await send_block(client, 0, True, 5)).code == CONTINUE
    assert (await send_block(client, 8, True, 2)).code == CONTINUE
    client.send(client.request(PATH, b"end", (BLOCK1, block(9, False, 2))))
    assert (await cluster.request()).fields["payload"] == BODY[:576] + b"end"


async def test_missing_and_repeated_blocks(cluster: Cluster, client: CoapClient) -> None:
    assert (await send_block(client, 1, True, 4)).code == INCOMPLETE
    assert (await send_block(client, 0, True, 4)).code == CONTINUE
    assert (await send_block(client, 2, True, 4)).code == INCOMPLETE
    assert (await send_block(client, 1, True, 4)).code == CONTINUE
    assert (await send_block(client, 0, True, 4)).code == CONTINUE  # begins anew
    client.send(client.request(PATH, b"!", (BLOCK1, block(1, False, 4))))
    assert (await cluster.request()).fields["payload"] == BODY[:256] + b"!"


async def test_a_short_block_that_is_not_the_last(client: CoapClient) -> None:
    assert (await client.post(PATH, b"short", (BLOCK1, block(0, True, 0)))).code == 0x80


async def test_transfers_are_told_apart(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    other_path = "kp1/app_v1/dcx/token/other"
    bodies = {(PATH, b""): b"a" * 17, (PATH, b"t"): b"b" * 17, (other_path, b""): b"c" * 17}
    for (path, tag), body in bodies.items():
        assert (await send_block(client, 0, True, 0, body, path, tag)).code == CONTINUE
    assert server.tables["requests"] == 3
    for count, ((path, tag), body) in enumerate(bodies.items()):
        tags = [(REQUEST_TAG, tag)] if tag else []
        client.send(client.request(path, body[16:], (BLOCK1, block(1, False, 0)), *tags))
        (request,) = await cluster.next_requests(1, after=count)
        assert request.fields["payload"] == body


async def test_the_body_is_too_large(server: RunningCoapServer, client: CoapClient) -> None:
    answer = await client.post(PATH, BODY[:16], (BLOCK1, block(0, True, 0)), (SIZE1, uint(2049)))
    assert (answer.code, option(answer, SIZE1)) == (TOO_LARGE, uint(2048))
    assert (await send_block(client, 0, True, SZX_MAX)).code == CONTINUE
    assert (await send_block(client, 1, True, SZX_MAX, bytes(2048))).code == CONTINUE
    answer = await client.post(PATH, b"x", (BLOCK1, block(2, False, SZX_MAX)))
    assert (answer.code, option(answer, SIZE1)) == (TOO_LARGE, uint(2048))


async def test_reassembly_is_bounded(server: RunningCoapServer, client: CoapClient) -> None:
    """At the bound of memory a transfer is put off, and at that of a peer too: it ends no other."""
    for number in range(4):
        path = f"{PATH}/{number}"
        assert (await send_block(client, 0, True, SZX_MAX, path=path)).code == CONTINUE
    assert server.tables["requests_bytes"] == 4096
    async with CoapClient(server.port) as other:
        answer = await send_block(other, 0, True, SZX_MAX)
        assert (answer.code, option(answer, 14)) == (UNAVAILABLE, b"\x01")
        assert (await send_block(client, 0, True, SZX_MAX, path=f"{PATH}/5")).code == UNAVAILABLE
        assert server.tables["requests"] == 4
        # The same transfer may begin anew, with another token.
        assert (await send_block(client, 0, True, SZX_MAX, path=f"{PATH}/0")).code == CONTINUE
        assert server.tables["requests"] == 4
        await server.put_forward(BODY_LIFETIME + 1)
        assert server.tables["requests"] == server.tables["requests_bytes"] == 0
        assert (await send_block(other, 0, True, SZX_MAX)).code == CONTINUE


async def test_the_number_of_bodies_is_bounded(cluster: Cluster, server: RunningCoapServer) -> None:
    """However small they are: their places in the tables cost memory too."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(CoapClient(server.port)) for _ in range(BODIES_MAX + 1)]
        *fitting, last = clients
        for client in fitting:
            assert (await send_block(client, 0, True, 0)).code == CONTINUE
        assert (server.tables["requests"], server.tables["requests_bytes"]) == (BODIES_MAX, 16 * BODIES_MAX)
        answer = await send_block(last, 0, True, 0)
        assert (answer.code, option(answer, 14)) == (UNAVAILABLE, b"\x01")
        fitting[0].send(fitting[0].request(PATH, b"end", (BLOCK1, block(1, False, 0))))
        await cluster.request()
        assert server.tables["requests"] == BODIES_MAX - 1
        assert (await send_block(last, 0, True, 0)).code == CONTINUE
        assert server.tables["requests"] == BODIES_MAX


async def test_the_number_of_kept_responses_is_bounded(cluster: Cluster, server: RunningCoapServer) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(CoapClient(server.port)) for _ in range(BODIES_MAX + 1)]
        for count, client in enumerate(clients):
            client.send(client.request(PATH, b"", (BLOCK2, block(0, False, 0))))
            (request,) = await cluster.next_requests(1, after=count)
            await cluster.answer(request, BODY[:32])
            assert option(await client.receive(), BLOCK2) == block(0, True, 0)
        assert (server.tables["responses"], server.tables["responses_bytes"]) == (BODIES_MAX, 32 * BODIES_MAX)
        second_block = (BLOCK2, block(1, False, 0))
        assert (await clients[0].post(PATH, b"", second_block)).code == INCOMPLETE
        for client in clients[1:]:
            assert (await client.post(PATH, b"", second_block)).payload == BODY[16:32]


async def test_a_large_response_is_fetched_in_blocks(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    first = await large_answer(cluster, client, (BLOCK2, block(0, False, 4)))
    assert option(first, BLOCK2) == block(0, True, 4)
    assert option(first, SIZE2) == uint(len(BODY))
    assert option(first, ETAG)
    body = first.payload
    for number in range(1, 5):
        answer = await client.post(PATH, PADDING, (BLOCK2, block(number, False, 4)))
        assert option(answer, BLOCK2) == block(number, number < 4, 4)
        assert option(answer, ETAG) == option(first, ETAG)
        body += answer.payload
    assert body == BODY
    assert len(cluster.requests) == 1
    smaller = await client.post(PATH, b"", (BLOCK2, block(79, False, 0)))
    assert (smaller.payload, option(smaller, BLOCK2)) == (BODY[-16:], block(79, False, 0))
    assert (await client.post(PATH, b"", (BLOCK2, block(5, False, 4)))).code == 0x80
    assert (await client.post(PATH, b"", (BLOCK2, block(1, False, 4)), method=GET)).code == INCOMPLETE
    await server.put_forward(BODY_LIFETIME + 1)
    assert server.tables["responses"] == 0
    assert (await client.post(PATH, b"", (BLOCK2, block(1, False, 4)))).code == INCOMPLETE


async def test_a_small_response_names_the_block_that_was_asked_for(
    cluster: Cluster, client: CoapClient
) -> None:
    client.send(client.request(PATH, b"", (BLOCK2, block(0, False, 2))))
    await cluster.answer(await cluster.request(), b"small")
    answer = await client.receive()
    assert (answer.payload, option(answer, BLOCK2)) == (b"small", block(0, False, 2))
    assert option(answer, ETAG) is None


async def test_kept_responses_are_bounded(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """At the bound of memory, what was not fetched for longest goes."""
    async with (
        CoapClient(server.port) as second,
        CoapClient(server.port) as third,
        CoapClient(server.port) as last,
    ):
        for other in (client, second, third):
            await large_answer(cluster, other)
        assert server.tables["responses_bytes"] == 3 * len(BODY)
        assert (await client.post(PATH, b"", (BLOCK2, block(1, False, 4)))).payload
        await large_answer(cluster, last)
        assert server.tables["responses_bytes"] == 3 * len(BODY)
        assert (await second.post(PATH, b"", (BLOCK2, block(1, False, 4)))).code == INCOMPLETE
        assert (await client.post(PATH, b"", (BLOCK2, block(2, False, 4)))).payload


async def test_a_response_larger_than_all_memory(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    client.send(client.request(PATH))
    await cluster.answer(await cluster.request(), bytes(4097))
    assert (await client.receive()).code == 0xA0
    assert server.count("dropped", "coap_response_too_large") == 1


async def test_transfers_of_one_address_are_settable(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with (
        coap_server(shared_nats.url, transfers_per_peer=1) as server,
        CoapClient(server.port) as client,
    ):
        assert (await send_block(client, 0, True, 0, path=f"{PATH}/0")).code == CONTINUE
        assert (await send_block(client, 0, True, 0, path=f"{PATH}/1")).code == UNAVAILABLE
        client.send(client.request(f"{PATH}/0", b"end", (BLOCK1, block(1, False, 0))))
        await cluster.answer(await cluster.request())
        assert (await client.receive()).code == 0x44
        assert (await send_block(client, 0, True, 0, path=f"{PATH}/1")).code == CONTINUE


async def test_tokens_tell_transfers_on_one_path_apart(cluster: Cluster, client: CoapClient) -> None:
    for token in (b"A", b"B"):
        answer = await client.post(PATH, token * 16, (BLOCK1, block(0, True, 0)), token=token)
        assert answer.code == CONTINUE
    for count, token in enumerate((b"A", b"B")):
        client.send(client.request(PATH, token, (BLOCK1, block(1, False, 0)), token=token))
        (request,) = await cluster.next_requests(1, after=count)
        assert request.fields["payload"] == token * 17


async def test_tokens_tell_responses_on_one_path_apart(cluster: Cluster, client: CoapClient) -> None:
    """And bodies that differ have ETags that differ."""
    etags = []
    for count, token in enumerate((b"A", b"B")):
        client.send(client.request(PATH, PADDING, (BLOCK2, block(0, False, 0)), token=token))
        (request,) = await cluster.next_requests(1, after=count)
        await cluster.answer(request, token * 40)
        etags.append(option(await client.receive(), ETAG))
    assert len(set(etags)) == 2
    for token in (b"A", b"B"):
        following = await client.post(PATH, PADDING, (BLOCK2, block(1, False, 0)), token=token)
        assert following.payload == token * 16
    latest = await client.post(PATH, PADDING, (BLOCK2, block(1, False, 0)), token=b"C")
    assert latest.payload == b"B" * 16


async def test_a_block_sent_again_is_answered_as_before(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    """With another message ID it is no duplicate; its answer may have been lost all the same."""
    for _ in range(2):
        assert (await send_block(client, 0, True, 0)).code == CONTINUE
    for _ in range(2):
        assert (await send_block(client, 1, True, 0)).code == CONTINUE
    for _ in range(3):
        client.send(client.request(PATH, b"end", (BLOCK1, block(2, False, 0)), token=b"T"))
    await cluster.answer(await cluster.request(), b"done")
    codes = sorted([(await client.receive()).code for _ in range(3)])
    assert codes == [0, 0, 0x44]  # two acknowledgements, for which the response is the one that they wait for
    again = await client.post(PATH, b"end", (BLOCK1, block(2, False, 0)))
    assert (again.code, again.payload, option(again, BLOCK1)) == (0x44, b"done", block(2, False, 0))
    assert len(cluster.requests) == 1
    assert (await client.post(PATH, b"END", (BLOCK1, block(2, False, 0)))).code == INCOMPLETE
    await server.put_forward(BODY_LIFETIME + 1)
    assert (await client.post(PATH, b"end", (BLOCK1, block(2, False, 0)))).code == INCOMPLETE
