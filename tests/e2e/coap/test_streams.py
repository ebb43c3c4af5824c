"""CoAP over streams (RFC 8323): signaling, requests, observations, limits and the end, message by message."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import Client
from kaa_gateway.wire.coap import Message
from kaa_gateway.wire.coap_stream import encode_stream

from tests.support.cluster import Cluster
from tests.support.coap import BLOCK1, BLOCK2, GET, NO_RESPONSE, OBSERVE, block, option, uint
from tests.support.coap_stream import (
    ABORT,
    CSM,
    PING,
    PONG,
    RELEASE,
    STREAM,
    RunningStreamServer,
    StreamClient,
    coap_stream_server,
)
from tests.support.esp import until
from tests.support.nats import NatsServer

PATH = "kp1/app_v1/dcx/token/json"
LARGE = bytes(i * 7 % 251 for i in range(20_000))


def signal(code: int, *options: tuple[int, bytes], token: bytes = b"", payload: bytes = b"") -> Message:
    return Message(STREAM, code, 0, token, options, payload)


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[RunningStreamServer]:
    async with coap_stream_server(shared_nats.url) as server:
        yield server


@pytest.fixture
async def client(server: RunningStreamServer) -> AsyncIterator[StreamClient]:
    async with StreamClient(server.port) as client:
        yield client


# ---------------------------------------------------------------- signaling


async def test_the_server_says_what_it_can(server: RunningStreamServer) -> None:
    """Sections 5.3.1 and 5.3.2, and RFC 8974 section 2.2.2: the largest message, blocks, and tokens of 64 bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    size = uint(256 * 1024 + 2048)
    expected = encode_stream(signal(CSM, (2, size), (4, b""), (6, b"\x40")))
    assert await reader.readexactly(len(expected)) == expected
    writer.close()


async def test_a_ping_is_answered_with_its_token(client: StreamClient) -> None:
    client.send(signal(PING, token=b"\x42"))
    assert await client.receive() == signal(PONG, token=b"\x42")
    client.send(signal(PING, (2, b""), token=b"12 bytes tok"))
    assert await client.receive() == signal(PONG, token=b"12 bytes tok")


async def test_an_empty_message_is_ignored(client: StreamClient) -> None:
    client.send(b"\x00\x00" + encode_stream(signal(PING)))
    assert await client.receive() == signal(PONG)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (signal(PING), "coap_no_csm"),
        (Message(STREAM, GET, 0, b"", ((11, b"kp1"),)), "coap_no_csm"),
        (signal(RELEASE), "coap_no_csm"),
        (b"\x0f\x01", "coap_token_length"),
    ],
)
async def test_the_first_message_is_a_csm(
    server: RunningStreamServer, sent: Message | bytes, reason: str
) -> None:
    async with StreamClient(server.port, csm=False) as client:
        client.send(sent)
        assert await client.receive() == signal(ABORT, payload=reason.encode())
        await client.is_closed()
    assert server.count("closed", reason) == 1


@pytest.mark.parametrize("number", [1, 3, 0x101])
async def test_an_unknown_critical_option_of_a_csm_is_named(server: RunningStreamServer, number: int) -> None:
    async with StreamClient(server.port, csm=False) as client:
        client.send(signal(CSM, (number, b"")))
        expected = signal(ABORT, (2, uint(number)), payload=b"coap_critical_signal_option")
        assert await client.receive() == expected
        await client.is_closed()


@pytest.mark.parametrize("code", [PING, PONG, RELEASE])
async def test_an_unknown_critical_option_aborts(client: StreamClient, code: int) -> None:
    client.send(signal(code, (9, b"")))
    assert await client.receive() == signal(ABORT, payload=b"coap_critical_signal_option")
    await client.is_closed()


async def test_a_client_that_takes_hardly_anything_is_refused(client: StreamClient) -> None:
    client.send(signal(CSM, (2, uint(128))))
    client.send(signal(CSM, (2, uint(127))))
    assert await client.receive() == signal(ABORT, (2, uint(2)), payload=b"coap_small_message_size")


async def test_unknown_elective_options_and_signals_are_ignored(
    server: RunningStreamServer, client: StreamClient
) -> None:
    client.send(signal(CSM, (2, b"12345"), (8, b"x")))
    client.send(signal(0xE9))
    client.send(signal(PING))
    assert await client.receive() == signal(PONG)
    assert server.count("dropped", "coap_unknown_signal") == 1


async def test_the_clients_abort_ends_the_connection(
    server: RunningStreamServer, client: StreamClient
) -> None:
    client.send(signal(ABORT, payload=b"because"))
    await client.is_closed()
    assert not client.inbox
    assert server.count("closed", "coap_abort_by_client") == 1


async def test_no_csm_in_time(shared_nats: NatsServer) -> None:
    async with (
        coap_stream_server(shared_nats.url, csm_timeout=5.0) as server,
        StreamClient(server.port, csm=False) as client,
    ):
        await server.server.put_forward(6)
        assert (await client.receive()).payload == b"coap_csm_timeout"
        await client.is_closed()


async def test_a_silent_client_is_asked_for_a_sign_of_life(
    server: RunningStreamServer, client: StreamClient
) -> None:
    client.send(signal(PING))
    await client.receive()
    await server.checked()
    await server.server.put_forward(301)
    assert await client.receive() == signal(PING)
    client.send(signal(PONG))
    client.send(b"\x00\x00" * 3 + encode_stream(signal(PING)))
    assert await client.receive() == signal(PONG)
    await server.checked()
    await server.server.put_forward(301)
    assert await client.receive() == signal(PING)
    await server.server.put_forward(31)
    assert await client.receive() == signal(ABORT, payload=b"coap_no_pong")
    await client.is_closed()


# ---------------------------------------------------------------- requests


async def test_requests_are_answered_in_any_order(cluster: Cluster, client: StreamClient) -> None:
    first, second = client.request(PATH, b"1"), client.request(PATH, b"2")
    client.send(encode_stream(first) + encode_stream(second))
    one, two = await cluster.next_requests(2)
    await cluster.answer(two, b"two")
    await cluster.answer(one, b"one")
    answers = [await client.receive(), await client.receive()]
    assert {answer.token: answer.payload for answer in answers} == {first.token: b"one", second.token: b"two"}
    assert {answer.code for answer in answers} == {0x44}


async def test_a_message_in_single_bytes(cluster: Cluster, client: StreamClient) -> None:
    request = client.request(PATH, b"x" * 300)
    for byte in encode_stream(request):
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    forwarded = await cluster.request()
    assert forwarded.fields["payload"] == b"x" * 300
    await cluster.answer(forwarded, b"ok")
    assert (await client.receive()).token == request.token


async def test_equal_tokens_and_long_tokens(cluster: Cluster, client: StreamClient) -> None:
    """There are no duplicates over a stream: each request is one of its own."""
    request = client.request(PATH, b"same", token=b"t" * 64)
    for number in range(2):
        client.send(request)
        (forwarded,) = await cluster.next_requests(1, after=number)
        await cluster.answer(forwarded, str(number).encode())
        answer = await client.receive()
        assert (answer.token, answer.payload) == (request.token, str(number).encode())
    assert (await client.post(PATH, token=bytes(65))).code == 0x80


async def test_a_large_body_in_one_message_and_in_blocks(cluster: Cluster, client: StreamClient) -> None:
    """The response is one message if the client takes it, and blocks if it does not (the base size is 1152)."""
    request = client.request(PATH, LARGE)
    client.send(request)
    forwarded = await cluster.request()
    assert forwarded.fields["payload"] == LARGE
    await cluster.answer(forwarded, LARGE)
    first = await client.receive()
    assert (first.payload, option(first, BLOCK2)) == (LARGE[:1024], block(0, True, 6))
    assert len(encode_stream(first)) <= 1152
    body = first.payload
    for number in range(1, 20):
        body += (await client.post(PATH, b"", (BLOCK2, block(number, False, 6)))).payload
    assert body == LARGE

    client.send(signal(CSM, (2, uint(65_536)), (4, b"")))
    client.send(client.request(PATH, LARGE))
    await cluster.answer((await cluster.next_requests(1, after=1))[0], LARGE)
    whole = await client.receive()
    assert (whole.payload, option(whole, BLOCK2)) == (LARGE, None)


async def test_a_request_in_blocks_of_several_blocks(cluster: Cluster, client: StreamClient) -> None:
    """BERT (section 6): SZX 7 is a block of any multiple of 1024 bytes, and NUM counts 1024 bytes."""
    first = await client.post(PATH, LARGE[:3072], (BLOCK1, block(0, True, 7)))
    assert (first.code, option(first, BLOCK1)) == (0x5F, block(0, True, 7))
    wrong = await client.post(PATH, LARGE[:3000], (BLOCK1, block(3, True, 7)))
    assert wrong.code == 0x80
    second = await client.post(PATH, LARGE[3072:7168], (BLOCK1, block(3, True, 7)))
    assert second.code == 0x5F
    last = client.request(PATH, LARGE[7168:7500], (BLOCK1, block(7, False, 7)))
    client.send(last)
    forwarded = await cluster.request()
    assert forwarded.fields["payload"] == LARGE[:7500]
    await cluster.answer(forwarded, b"done")
    assert (await client.receive()).payload == b"done"


async def test_the_limits_of_a_message(shared_nats: NatsServer, cluster: Cluster) -> None:
    async with coap_stream_server(shared_nats.url, max_body_size=4096) as server:
        async with StreamClient(server.port) as client:
            refused = await client.post(PATH, bytes(4097))
            assert (refused.code, option(refused, 60)) == (0x8D, uint(4096))
            client.send(client.request(PATH, bytes(4096)))
            await cluster.answer(await cluster.request(), b"ok")
            assert (await client.receive()).payload == b"ok"
        async with StreamClient(server.port) as client:
            client.send(b"\xf0\xff\xff\xff\xff\x02")
            assert (await client.receive()).payload == b"coap_message_too_large"
            await client.is_closed()


async def test_errors_and_no_response(cluster: Cluster, client: StreamClient) -> None:
    assert (await client.post("other/path")).code == 0x84
    assert (await client.post(PATH, method=4)).code == 0x85
    assert (await client.post(PATH, b"", (9, b"x"))).code == 0x82
    client.send(client.request(PATH, b"", (NO_RESPONSE, b"\x02")))
    await cluster.answer(await cluster.request(), b"unwanted")
    assert await client.hears_nothing()


async def test_what_is_malformed_aborts(server: RunningStreamServer, client: StreamClient) -> None:
    client.send(b"\x10\x02\xff")
    assert await client.receive() == signal(ABORT, payload=b"coap_empty_payload")
    await client.is_closed()


async def test_too_many_requests_at_once(shared_nats: NatsServer, cluster: Cluster) -> None:
    async with (
        coap_stream_server(shared_nats.url, outstanding_per_peer=2) as server,
        StreamClient(server.port) as client,
    ):
        requests = [client.request(PATH, bytes([number])) for number in range(3)]
        for request in requests:
            client.send(request)
        refused = await client.receive()
        assert (refused.code, refused.token) == (0xA3, requests[2].token)
        for forwarded in await cluster.next_requests(2):
            await cluster.answer(forwarded, b"")
        await client.receive()
        await client.receive()


# ---------------------------------------------------------------- observations


async def register(cluster: Cluster, client: StreamClient, path: str = PATH) -> Message:
    request = client.request(path, b"", (OBSERVE, b""), method=GET)
    client.send(request)
    await cluster.answer(await cluster.request(), b"first")
    response = await client.receive()
    assert response.token == request.token
    return response


async def push(cluster: Cluster, payload: bytes) -> None:
    await cluster.push("token", payload, resourcePath="/json")


async def test_every_push_is_a_notification(
    cluster: Cluster, server: RunningStreamServer, client: StreamClient
) -> None:
    """Section 7.1: nothing is acknowledged, nothing waits, and order is kept."""
    registered = await register(cluster, client)
    assert option(registered, OBSERVE) is not None
    for number in range(40):
        await push(cluster, str(number).encode())
    for number in range(40):
        notification = await client.receive()
        assert (notification.token, notification.payload) == (registered.token, str(number).encode())
    assert server.tables["transmissions"] == 0
    client.send(client.request(PATH, b"", (OBSERVE, b"\x01"), method=GET, token=registered.token))
    await until(lambda: server.tables["observers"] == 0, "the end of the observation")


async def test_a_lost_connection_ends_its_observations(cluster: Cluster, server: RunningStreamServer) -> None:
    async with StreamClient(server.port) as client:
        await register(cluster, client)
        assert server.tables["observers"] == 1
        assert server.server.presence.present
    await until(lambda: server.tables["observers"] == 0, "the end of the observation")
    assert not server.server.presence.present


async def test_a_request_waits_for_a_push(
    cluster: Cluster, server: RunningStreamServer, client: StreamClient
) -> None:
    request = client.request(PATH, b"", (15, b"wait=30"))
    client.send(request)
    await cluster.request()
    await until(lambda: bool(server.server.presence.present), "the wait")
    await push(cluster, b"now")
    response = await client.receive()
    assert (response.token, response.payload) == (request.token, b"now")
    assert server.tables["waits"] == 0
    client.send(client.request(PATH, b"", (15, b"wait=30")))
    await cluster.next_requests(1, after=1)
    await until(lambda: bool(server.server.presence.present), "the wait")
    await server.server.put_forward(31)
    assert (await client.receive()).code == 0x43


# ---------------------------------------------------------------- the end


async def test_release_is_answered_and_closed(cluster: Cluster, client: StreamClient) -> None:
    """Section 5.5: the sender of Release still gets the responses to its requests."""
    client.send(client.request(PATH, b"last"))
    forwarded = await cluster.request()
    client.send(signal(RELEASE))
    await cluster.answer(forwarded, b"answer")
    assert (await client.receive()).payload == b"answer"
    await client.is_closed()


async def test_the_end_of_input_waits_for_answers(cluster: Cluster, client: StreamClient) -> None:
    client.send(client.request(PATH, b"last"))
    client.end_of_output()
    await cluster.answer(await cluster.request(), b"answer")
    assert (await client.receive()).payload == b"answer"
    await client.is_closed()


async def test_drain_sends_clients_elsewhere(shared_nats: NatsServer, cluster: Cluster) -> None:
    """Release names the other address; observations end with 5.03, and further requests get 5.03."""
    async with (
        coap_stream_server(shared_nats.url, alternative_address="other.example:5683") as server,
        StreamClient(server.port) as client,
    ):
        await register(cluster, client)
        server.core.begin_drain()
        release = await client.receive(lambda message: message.code == RELEASE)
        assert release == signal(RELEASE, (2, b"other.example:5683"))
        assert (await client.receive()).code == 0xA3
        assert not server.core.has_observers()
        assert (await client.post(PATH)).code == 0xA3


# ---------------------------------------------------------------- clients


async def test_a_client_is_authenticated_before_its_first_request(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    asked: asyncio.Queue[asyncio.Future[Client]] = asyncio.Queue()

    def authenticate(certificate: object) -> asyncio.Future[Client]:
        future: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        asked.put_nowait(future)
        return future

    async with coap_stream_server(shared_nats.url, authenticate=authenticate) as server:
        async with StreamClient(server.port) as client:
            client.send(client.request(PATH, b"early"))
            future = await asyncio.wait_for(asked.get(), 30)
            assert not cluster.requests
            future.set_result(Client("principal"))
            await cluster.answer(await cluster.request(), b"late")
            assert (await client.receive()).payload == b"late"
        async with StreamClient(server.port) as client:
            future = await asyncio.wait_for(asked.get(), 30)
            future.set_exception(IdentityError(401, "credentials_rejected"))
            assert await client.receive() == signal(ABORT, payload=b"credentials_rejected")
            await client.is_closed()
        assert server.count("refused", "credentials_rejected") == 1
        async with StreamClient(server.port) as client:
            await asyncio.wait_for(asked.get(), 30)  # it leaves before it is known
