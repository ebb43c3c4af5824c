"""The message layer and the options of requests: what the server sends for each datagram, and how often it forwards."""

from collections.abc import AsyncIterator

import pytest
from kaa_gateway.coap.links import Links
from kaa_gateway.coap.options import code_for
from kaa_gateway.wire.coap import Message

from tests.support.cluster import Cluster
from tests.support.coap import (
    ACK,
    CON,
    FETCH,
    GET,
    NO_RESPONSE,
    NON,
    POST,
    RST,
    URI_PATH,
    CoapClient,
    RunningCoapServer,
    coap_server,
    option,
    uint,
)
from tests.support.esp import until
from tests.support.nats import NatsServer

PATH = "kp1/app_v1/dcx/token/json"
EXCHANGE_LIFETIME = 247
NON_LIFETIME = 145
FOREVER = 3600.0


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[RunningCoapServer]:
    async with coap_server(shared_nats.url, piggyback_delay=FOREVER) as server:
        yield server


@pytest.fixture
async def client(server: RunningCoapServer) -> AsyncIterator[CoapClient]:
    async with CoapClient(server.port) as client:
        yield client


async def test_a_duplicate_is_answered_and_has_no_effect(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    request = client.request(PATH, b"once")
    client.send(request)
    await cluster.answer(await cluster.request(), b"done")
    answer = await client.receive()
    assert (answer.type, answer.code, answer.message_id) == (ACK, 0x44, request.message_id)
    for _ in range(3):
        assert await client.ask(request) == answer
    assert len(cluster.requests) == 1
    assert server.count("dropped", "coap_duplicate") == 3


async def test_a_duplicate_of_a_pending_request_is_acknowledged(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    request = client.request(PATH, b"once")
    client.send(request)
    forwarded = await cluster.request()
    for _ in range(2):
        assert await client.ask(request) == Message(ACK, 0, request.message_id)
    await cluster.answer(forwarded, b"done")
    response = await client.receive()
    assert (response.type, response.token, response.payload) == (CON, request.token, b"done")
    client.acknowledge(response)
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
    assert await client.ask(request) == Message(ACK, 0, request.message_id)
    assert len(cluster.requests) == 1


@pytest.mark.parametrize(("kind", "lifetime"), [(CON, EXCHANGE_LIFETIME), (NON, NON_LIFETIME)])
async def test_a_message_id_is_new_after_its_lifetime(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient, kind: int, lifetime: int
) -> None:
    request = client.request(PATH, kind=kind)
    client.send(request)
    await cluster.answer(await cluster.request())
    await client.receive()
    await server.put_forward(lifetime - 5)
    client.send(request)
    if kind == CON:
        await client.receive()
    assert await client.hears_nothing()
    await server.put_forward(10)
    client.send(request)
    await cluster.next_requests(1, after=1)


async def test_a_message_id_with_another_token_is_another_request(
    cluster: Cluster, client: CoapClient
) -> None:
    """A device that has restarted may begin with the same message IDs."""
    before = client.request(PATH, b"before")
    after = before._replace(token=b"other", payload=b"after")
    client.send(before)
    await cluster.answer(await cluster.request(), b"1")
    first = await client.receive()
    client.send(after)
    (request,) = await cluster.next_requests(1, after=1)
    assert request.fields["payload"] == b"after"
    await cluster.answer(request, b"2")
    second = await client.receive()
    assert (second.token, second.payload) == (b"other", b"2")
    assert await client.ask(before) == first
    assert await client.ask(after) == second
    assert len(cluster.requests) == 2


async def test_another_token_also_replaces_a_pending_request(cluster: Cluster, client: CoapClient) -> None:
    before = client.request(PATH, b"before")
    client.send(before)
    pending = await cluster.request()
    client.send(before._replace(token=b"other"))
    (request,) = await cluster.next_requests(1, after=1)
    await cluster.answer(pending, b"1")
    await cluster.answer(request, b"2")
    assert (await client.receive()).payload == b"2"
    assert await client.hears_nothing()


async def test_an_acknowledgement_may_have_a_code(cluster: Cluster, shared_nats: NatsServer) -> None:
    """Some modems acknowledge with 2.04 and the token."""
    async with (
        coap_server(shared_nats.url, piggyback_delay=0.01) as server,
        CoapClient(server.port) as client,
    ):
        await client.post(PATH)
        await cluster.answer(await cluster.request())
        response = await client.receive()
        client.send(Message(ACK, 0x44, response.message_id, response.token))
        await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
        assert server.count("dropped", "coap_unacknowledged") == 0


async def test_the_same_message_id_of_another_peer_is_another_request(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient
) -> None:
    request = client.request(PATH)
    async with CoapClient(server.port) as other:
        client.send(request)
        other.send(request)
        for forwarded in await cluster.next_requests(2):
            await cluster.answer(forwarded)
        assert (await client.receive()).message_id == (await other.receive()).message_id


async def test_a_late_answer_is_a_response_of_its_own(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with (
        coap_server(shared_nats.url, piggyback_delay=0.05) as server,
        CoapClient(server.port) as client,
    ):
        request = client.request(PATH)
        assert await client.ask(request) == Message(ACK, 0, request.message_id)
        await cluster.answer(await cluster.request(), b"late")
        response = await client.receive()
        assert (response.type, response.token, response.payload) == (CON, request.token, b"late")
        client.acknowledge(response)
        await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")


async def test_a_separate_response_is_retransmitted_until_given_up(
    cluster: Cluster, shared_nats: NatsServer
) -> None:
    async with (
        coap_server(shared_nats.url, piggyback_delay=0.01, ack_timeout=0.05) as server,
        CoapClient(server.port) as client,
    ):
        client.send(client.request(PATH))
        await client.receive()
        await cluster.answer(await cluster.request())
        await until(lambda: server.tables["transmissions"] == 1, "the response")
        await until(lambda: server.tables["transmissions"] == 0, "the end of it")
        responses = {tuple(message) for message in client.inbox}
        assert len(client.inbox) == 5  # once, and MAX_RETRANSMIT times
        assert len(responses) == 1
        assert server.count("dropped", "coap_unacknowledged") == 1


async def test_a_reset_ends_retransmission(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with (
        coap_server(shared_nats.url, piggyback_delay=0.01) as server,
        CoapClient(server.port) as client,
    ):
        await client.post(PATH)
        await cluster.answer(await cluster.request())
        response = await client.receive()
        client.send(Message(RST, 0, response.message_id))
        await until(lambda: server.tables["transmissions"] == 0, "the reset")


async def test_a_non_confirmable_request(cluster: Cluster, client: CoapClient) -> None:
    request = client.request(PATH, kind=NON)
    client.send(request)
    client.send(request)
    await cluster.answer(await cluster.request(), b"done")
    response = await client.receive()
    assert (response.type, response.token, response.payload) == (NON, request.token, b"done")
    assert await client.hears_nothing()
    assert len(cluster.requests) == 1


async def test_time_out_of_the_extension(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with (
        coap_server(shared_nats.url, piggyback_delay=FOREVER, response_timeout=0.1) as server,
        CoapClient(server.port) as client,
    ):
        response = await client.post(PATH)
        assert (response.code, response.payload) == (0xA4, b"The extension did not answer in time")
        await cluster.answer(await cluster.request())
        await until(lambda: server.count("dropped", "late_answer") == 1, "the late answer")


@pytest.mark.parametrize(
    ("mask", "status", "code"),
    [(2, 200, 0), (8, 404, 0), (16, 500, 0), (26, 200, 0), (8, 200, 0x44), (2, 404, 0x84), (24, 200, 0x44)],
)
async def test_no_response(cluster: Cluster, client: CoapClient, mask: int, status: int, code: int) -> None:
    client.send(client.request(PATH, b"", (NO_RESPONSE, uint(mask))))
    await cluster.answer(await cluster.request(), statusCode=status)
    assert (await client.receive()).code == code
    client.send(client.request(PATH, b"", (NO_RESPONSE, uint(mask)), kind=NON))
    (second,) = await cluster.next_requests(1, after=1)
    await cluster.answer(second, statusCode=status)
    if code:
        assert (await client.receive()).code == code
    assert await client.hears_nothing()


async def test_a_ping_is_answered_with_a_reset(server: RunningCoapServer, client: CoapClient) -> None:
    client.send(Message(CON, 0, 77))
    assert await client.receive() == Message(RST, 0, 77)
    assert server.tables["peers"] == 0


@pytest.mark.parametrize(
    ("datagram", "answer"),
    [
        (b"", None),
        (b"\x40\x01\x00", None),
        (b"\x80\x01\x00\x05", None),
        (b"\x49\x01\x00\x05" + bytes(8), Message(RST, 0, 5)),
        (b"\x4f\x01\x00\x05" + bytes(9), Message(RST, 0, 5)),
        (b"\x5f\x01\x00\x05" + bytes(9), None),
        (b"\x40\x01\x00\x05\xff", Message(RST, 0, 5)),
        (b"\x40\x00\x00\x05\x00", Message(RST, 0, 5)),
        (b"\x40\x21\x00\x05", Message(RST, 0, 5)),
        (b"\x40\x45\x00\x05", Message(RST, 0, 5)),
        (b"\x50\x45\x00\x05", None),
        (b"\x60\x02\x00\x05", None),
        (b"\x60\x00\x00\x05", None),
        (b"\x70\x00\x00\x05", None),
        (b"\x50\x00\x00\x05", None),
    ],
)
async def test_what_is_no_request(
    server: RunningCoapServer, client: CoapClient, datagram: bytes, answer: Message | None
) -> None:
    client.send(datagram)
    if answer is not None:
        assert await client.receive() == answer
    assert await client.hears_nothing()
    assert server.tables["peers"] == 0


@pytest.mark.parametrize(
    ("path", "options", "method", "code"),
    [
        (PATH, [(9, b"")], POST, 0x82),
        (PATH, [(1, b"x")], POST, 0x82),
        (PATH, [(17, b"\x32"), (17, b"\x32")], POST, 0x82),
        (PATH, [(17, b"123")], POST, 0x82),
        (PATH, [(35, b"coap://other/")], POST, 0xA5),
        (PATH, [(39, b"coap")], POST, 0xA5),
        (PATH, [(27, b"\x07")], POST, 0x80),
        (PATH, [], 4, 0x85),
        (PATH, [], 7, 0x85),
        ("kp1/app_v1", [], POST, 0x84),
        ("other", [], POST, 0x84),
        ("", [], POST, 0x84),
        ("kp1/app_v1/unknown/token", [], POST, 0x84),
        ("kp1/app_v2/dcx/token", [], POST, 0x84),
        ("kp1/app_v1/dcx", [], POST, 0x84),
        ("kp1/app_v1/dcx/token" + 5 * ("/" + 100 * "x"), [(27, b"\x08")], POST, 0x84),
        ("kp1/app_v1/dcx/token\0/json", [], POST, 0x80),
        ("kp1/app_v1/dcx/tok\x1ben/json", [], POST, 0x80),
        (".well-known/core", [], POST, 0x84),
    ],
)
async def test_what_is_refused(
    client: CoapClient, path: str, options: list[tuple[int, bytes]], method: int, code: int
) -> None:
    response = await client.post(path, b"", *options, method=method)
    assert (response.type, response.code) == (ACK, code)


@pytest.mark.parametrize("segment", [b"a/b", b"\xff", b"\xc2\x85", b"\xed\xa0\x80"])
async def test_a_segment_that_is_no_level(client: CoapClient, segment: bytes) -> None:
    request = client.request(PATH)
    response = await client.ask(request._replace(options=(*request.options, (URI_PATH, segment))))
    assert response.code == 0x80


async def test_an_unknown_critical_option_rejects_a_non_confirmable_request(client: CoapClient) -> None:
    request = client.request(PATH, b"", (9, b""), kind=NON)
    assert await client.ask(request) == Message(RST, 0, request.message_id)


@pytest.mark.parametrize(
    ("levels", "resource_path"),
    [
        ("", ""),
        ("/json", "/json"),
        ("/json/", "/json/"),
        ("/json/42", "/json/42"),
        ("/a//b", "/a//b"),
        ("/../json", "/../json"),
        ("/%2F", "/%2F"),
        ("/\u00e9", "/\u00e9"),
    ],
)
async def test_the_path_and_payload_go_as_they_are(
    cluster: Cluster, client: CoapClient, levels: str, resource_path: str
) -> None:
    client.send(
        client.request(f"kp1/app_v1/dcx/token{levels}", b"\xff\0", (15, b"q=1"), (3, b"host"), (2048, b""))
    )
    fields = (await cluster.request()).fields
    assert fields["resourcePath"] == resource_path
    assert (fields["payload"], fields["endpointId"]) == (b"\xff\0", "token")
    assert fields["requestId"] is not None


@pytest.mark.parametrize(
    ("accept", "content_format"), [(None, b"\x32"), (50, b"\x32"), (0, b""), (60, b"\x3c")]
)
async def test_content_format(
    cluster: Cluster, client: CoapClient, accept: int | None, content_format: bytes
) -> None:
    client.send(client.request(PATH, b"", *([] if accept is None else [(17, uint(accept))]), method=GET))
    await cluster.answer(await cluster.request(), b"{}")
    assert option(await client.receive(), 12) == content_format


@pytest.mark.parametrize(("path", "accept"), [(PATH, 999), (PATH, 11542), (".well-known/core", 50)])
async def test_a_content_format_that_there_is_not(
    cluster: Cluster, client: CoapClient, path: str, accept: int
) -> None:
    """RFC 7252 section 5.10.4: 4.06, and no effect."""
    assert (await client.post(path, b"", (17, uint(accept)), method=GET)).code == 0x86
    assert not cluster.requests


async def test_links_in_their_format(server: RunningCoapServer, client: CoapClient) -> None:
    response = await client.post(".well-known/core", b"", (17, uint(40)), method=GET)
    assert (response.code, option(response, 12)) == (0x45, b"\x28")
    server.core.list_links({"app_v1": {"other"}})
    changed = await client.post(".well-known/core", b"", (17, uint(40)), method=GET)
    assert option(changed, 4) != option(response, 4)


async def test_a_long_reason_phrase_is_cut_between_characters(cluster: Cluster, client: CoapClient) -> None:
    client.send(client.request(PATH, bytes(600)))
    await cluster.answer(await cluster.request(), statusCode=409, reasonPhrase="x" + "\u00e9" * 1000)
    assert (await client.receive()).payload.decode() == "x" + "\u00e9" * 255


async def test_the_reason_phrase_is_the_diagnostic_payload(cluster: Cluster, client: CoapClient) -> None:
    client.send(client.request(PATH))
    await cluster.answer(await cluster.request(), b"ignored", statusCode=409, reasonPhrase="Schl\u00fcssel")
    response = await client.receive()
    assert (response.code, response.payload.decode(), option(response, 12)) == (0x89, "Schl\u00fcssel", None)


async def test_what_is_served_is_listed(client: CoapClient) -> None:
    response = await client.post(".well-known/core", method=GET)
    assert (response.code, option(response, 12)) == (0x45, b"\x28")
    assert Links({"v 1": {"b", "a"}, "v0": set()}).select().body == (
        b'</kp1/v%201/a>;rt="kaa.a";ct=50,</kp1/v%201/b>;rt="kaa.b";ct=50'
    )


@pytest.mark.parametrize("size", [9, 12, 13, 64])
async def test_extended_tokens(cluster: Cluster, client: CoapClient, size: int) -> None:
    """RFC 8974: the token comes back whole, and tells duplicates from other requests."""
    request = client.request(PATH, b"1", token=b"a" * (size - 1) + b"1")
    client.send(request)
    await cluster.answer(await cluster.request(), b"one")
    answer = await client.receive()
    assert (answer.type, answer.token, answer.payload) == (ACK, request.token, b"one")
    assert await client.ask(request) == answer
    other = request._replace(token=b"a" * (size - 1) + b"2")
    client.send(other)
    (forwarded,) = await cluster.next_requests(1, after=1)
    await cluster.answer(forwarded, b"two")
    assert (await client.receive()).payload == b"two"
    assert len(cluster.requests) == 2


@pytest.mark.parametrize(("kind", "answer"), [(CON, ACK), (NON, NON)])
async def test_a_token_that_is_too_long_is_refused(
    cluster: Cluster, server: RunningCoapServer, client: CoapClient, kind: int, answer: int
) -> None:
    """RFC 8974 section 2.2.1: 4.00 and no Reset, which would say that no extended token is supported."""
    for size in (65, 300):
        request = client.request(PATH, b"1", token=bytes(size), kind=kind)
        response = await client.ask(request)
        assert response == Message(answer, 0x80, request.message_id, request.token)
    assert server.count("refused", "coap_long_token") == 2
    assert not cluster.requests
    assert client.bytes_received <= client.bytes_sent


async def test_nats_away(nats_server: NatsServer) -> None:
    async with coap_server(nats_server.url) as server, CoapClient(server.port) as client:
        nats_server.kill()
        await until(lambda: not server.link.ready, "the link to be gone")
        response = await client.post(PATH)
        assert (response.code, option(response, 14)) == (0xA3, b"\x01")


async def test_draining(cluster: Cluster, server: RunningCoapServer, client: CoapClient) -> None:
    """What is pending is answered, and so are duplicates; what is new is put off."""
    request = client.request(PATH)
    client.send(request)
    forwarded = await cluster.request()
    server.core.begin_drain()
    assert (await client.post(PATH)).code == 0xA3
    await cluster.answer(forwarded, b"done")
    answer = await client.receive()
    assert answer.payload == b"done"
    assert await client.ask(request) == answer


STATUSES = {
    200: 0x44, 201: 0x41, 202: 0x44, 204: 0x44, 304: 0x43, 400: 0x80, 401: 0x81, 403: 0x83, 404: 0x84, 405: 0x85,
    406: 0x86, 408: 0x88, 409: 0x89, 412: 0x8C, 413: 0x8D, 415: 0x8F, 422: 0x96, 429: 0x9D, 418: 0x80, 500: 0xA0,
    501: 0xA1, 502: 0xA2, 503: 0xA3, 504: 0xA4, 505: 0xA0, 599: 0xA0, 100: 0xA0, 302: 0xA0, 0: 0xA0, -1: 0xA0,
}  # fmt: skip


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_code_of_status(status: int, code: int) -> None:
    assert code_for(status, POST) == code
    assert code_for(status, GET) == code_for(status, FETCH) == (0x45 if status == 200 else code)
