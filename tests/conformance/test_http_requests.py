"""The HTTP server over a socket, against a real nats-server: what requests become, and what they are answered."""

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from kaa_gateway.config.keys import IdentitySettings, Limits, StaticIdentity

from tests.support.http_gateway import HttpGateway, post, running_gateway
from tests.support.nats import NatsServer
from tests.unit.http.test_parser import SMUGGLING


@pytest_asyncio.fixture
async def gateway(shared_nats: NatsServer) -> AsyncIterator[HttpGateway]:
    async with running_gateway(
        shared_nats,
        path_prefix="/kpc",
        max_body_size=100_000,
        max_header_size=2048,
        max_url_length=512,
        pipelined_requests=4,
    ) as running:
        yield running


def error(status: int, phrase: str) -> dict[str, object]:
    return {"statusCode": status, "reasonPhrase": phrase}


# From a request to its response


async def test_a_post_becomes_client_data_and_its_answer_the_response(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await client.send(post("/kp1/app-v1/dcx/token/json?x=y", b"payload"))
        request = await gateway.extension.request()
        data = request[0]
        assert (data.app_version_name, data.endpoint_id, data.resource_path) == ("app-v1", "token", "/json")
        assert (data.payload, data.timeout) == (b"payload", 30_000)
        assert data.request_id is not None, "extensions answer nothing else"
        await gateway.extension.answer(request, b'{"a":1}', 201, "Made it")
        reply = await client.reply()
    assert (reply.status, reply.phrase, reply.body) == (201, "Made it", b'{"a":1}')
    assert reply.fields["Content-Type"] == "application/json"
    assert "Connection" not in reply.fields
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", reply.fields["Date"])
    counters = gateway.worker.counters.by_protocol()
    assert (counters["messages_in"]["http"], counters["bytes_in"]["http"]) == (1, 7)
    assert (counters["messages_out"]["http"], counters["bytes_out"]["http"]) == (1, 7)
    assert sum(table.count() for table in gateway.worker.pending.values()) == 0


@pytest.mark.parametrize(
    ("path", "endpoint_id", "resource_path", "request_id"),
    [
        ("/kpc/kp1/app-v1/dcx/token/json/7", "token", "/json", 7),
        ("/kp1/app-v1/dcx/1234", "1234", "", None),
        ("/kp1/app-v1/tsx/a/", None, "/a/", None),
        ("http://gateway/kp1/app-v1/dcx/t%C3%A4/a%20b", "tä", "/a b", None),
    ],
)
async def test_resource_paths(
    gateway: HttpGateway, path: str, endpoint_id: str | None, resource_path: str, request_id: int | None
) -> None:
    async with await gateway.client() as client:
        await client.send(post(path))
        request = await gateway.extension.request()
        await gateway.extension.answer(request)
        reply = await client.reply()
    assert (request[0].endpoint_id, request[0].resource_path) == (endpoint_id, resource_path)
    assert request_id is None or request[0].request_id == request_id
    assert (reply.status, reply.body, reply.fields["Content-Length"]) == (200, b"", "0")
    assert "Content-Type" not in reply.fields


async def test_a_request_split_at_every_position(gateway: HttpGateway) -> None:
    gateway.extension.echoes = True
    data = post("/kp1/app-v1/tsx", b"hello")
    async with await gateway.client() as client:
        client.writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)
        for position in range(1, len(data)):
            await client.send(data[:position])
            await asyncio.sleep(0)
            await client.send(data[position:])
            assert (await client.reply()).body == b"hello", position


async def test_large_and_chunked_bodies(gateway: HttpGateway) -> None:
    gateway.extension.echoes = True
    body = bytes(range(256)) * 390
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:1], body[1:70_000], body[70_000:]))
    async with await gateway.client() as client:
        await client.send(post(body=body))
        assert (await client.reply()).body == body
        head = b"POST /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head + chunks + b"0\r\n\r\n")
        assert (await client.reply()).body == body


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
)
async def test_an_upgrade_is_ignored(gateway: HttpGateway, framing: bytes) -> None:
    """RFC 9110 section 7.8. Java's HttpClient and `curl --http2` offer h2c with each request to http://."""
    gateway.extension.echoes = True
    head = post(
        "/kp1/app-v1/tsx",
        fields="Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n",
    )
    data = head.removesuffix(b"Content-Length: 0\r\n\r\n") + framing
    async with await gateway.client() as client:
        await client.send(2 * data)
        for _ in range(2):
            reply = await client.reply()
            assert (reply.status, reply.body) == (200, b"body")
            assert "Upgrade" not in reply.fields


async def test_blanks_behind_a_value_are_no_part_of_it(gateway: HttpGateway) -> None:
    """RFC 9110 section 5.5."""
    gateway.extension.echoes = True
    fields = b"Host:\tgateway \t\r\nExpect: 100-continue \r\nConnection: close\t\r\nContent-Length: 4\t \r\n"
    data = b"POST /kp1/app-v1/tsx HTTP/1.1\r\n" + fields + b"\r\n"
    async with await gateway.client() as client:
        await client.send(data)
        assert (await client.reply()).status == 100
        await client.send(b"body")
        reply = await client.reply()
        assert (reply.status, reply.body, reply.fields["Connection"]) == (200, b"body", "close")


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_responses_that_have_no_content(gateway: HttpGateway, status: int) -> None:
    async with await gateway.client() as client:
        await client.send(post() * 2)
        for _ in range(2):
            await gateway.extension.answer(await gateway.extension.request(), b"not sent", status)
            reply = await client.reply()
            assert (reply.status, reply.body) == (status, b"")
            assert reply.fields.get("Content-Length") == ("0" if status == 205 else None)


async def test_errors_of_extensions(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        for payload, status, phrase, expected in (
            (None, 409, 'Say "no" ä', error(409, 'Say "no" ä')),
            (None, 418, None, error(418, "I'm a Teapot")),
            (b'{"why":1}', 500, None, {"why": 1}),
        ):
            await client.send(post())
            await gateway.extension.answer(await gateway.extension.request(), payload, status, phrase)
            reply = await client.reply()
            assert (reply.status, json.loads(reply.body)) == (status, expected)


@pytest.mark.parametrize("status", [-1, 0, 100, 101, 199, 600, 2_000_000_000])
async def test_a_status_that_is_not_final_is_a_bad_gateway(gateway: HttpGateway, status: int) -> None:
    async with await gateway.client() as client:
        await client.send(post())
        await gateway.extension.answer(await gateway.extension.request(), b"x", status)
        reply = await client.reply()
        assert (reply.status, json.loads(reply.body)["statusCode"]) == (502, 502)


async def test_a_reason_phrase_cannot_split_the_response(gateway: HttpGateway) -> None:
    phrase = "Fine\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\0ä" + 500 * "x"
    async with await gateway.client() as client:
        for status, payload in ((200, b"body"), (500, None)):
            await client.send(post())
            await gateway.extension.answer(await gateway.extension.request(), payload, status, phrase)
            reply = await client.reply()
            assert reply.status == status
            assert reply.phrase.startswith("Fine??Content-Length: 0????HTTP/1.1 200 OK???")
            assert len(reply.phrase) == 128
            if payload is None:
                assert json.loads(reply.body) == error(500, phrase)


async def test_a_reason_phrase_of_a_megabyte_is_cut(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await client.send(post())
        await gateway.extension.answer(await gateway.extension.request(), None, 500, "\x01" * 500_000)
        reply = await client.reply()
        assert json.loads(reply.body) == error(500, "\x01" * 1024)


# Refusals


@pytest.mark.parametrize(
    ("request_line", "status", "phrase"),
    [
        ("GET /kp1/app-v1/dcx/token", 405, "Only POST is allowed"),
        ("OPTIONS *", 405, "Only POST is allowed"),
        ("POST /", 404, "Resource path must be"),
        ("POST /healthz", 404, "Resource path must be"),
        ("POST /kp1/app-v1", 404, "Resource path must be"),
        ("POST /kp1/app-v2/dcx/token", 404, "Unknown application version"),
        ("POST /kp1/app-v1/nope/token", 404, "Unknown extension instance"),
        ("POST /kp1/app-v1/dcx", 404, "Endpoint token is missing"),
        ("POST /kp1/app-v1/dcx/a%2Fb", 400, "Malformed request target"),
        ("POST /kp1/app-v1/dcx/a%00", 400, "Malformed request target"),
        ("POST *", 400, "Malformed request target"),
    ],
)
async def test_refused_requests_leave_the_connection_open(
    gateway: HttpGateway, request_line: str, status: int, phrase: str
) -> None:
    gateway.extension.echoes = True
    data = f"{request_line} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".encode()
    async with await gateway.client() as client:
        await client.send(data + post(body=b"next"))
        reply = await client.reply()
        assert reply.status == status
        assert json.loads(reply.body)["statusCode"] == status
        assert json.loads(reply.body)["reasonPhrase"].startswith(phrase)
        assert reply.fields["Content-Type"] == "application/json"
        assert reply.fields.get("Allow") == ("POST" if status == 405 else None)
        assert (await client.reply()).body == b"next"
    assert sum(table.count() for table in gateway.worker.pending.values()) == 0


async def test_head_is_answered_without_a_body(gateway: HttpGateway) -> None:
    gateway.extension.echoes = True
    async with await gateway.client() as client:
        await client.send(b"HEAD /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\n\r\n" + post(body=b"next"))
        assert (await client.reply(to_head=True)).status == 405
        assert (await client.reply()).body == b"next"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n", 413),
        (b"POST /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"20000\r\n" + bytes(0x20000), 413),
        (b"POST /" + 600 * b"a", 414),
        (b"POST /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\nX: " + 3000 * b"a", 431),
        (b"POST /kp1/app-v1/tsx HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417),
    ],
)  # fmt: skip
async def test_limits_are_answered_and_the_client_may_read_it(
    gateway: HttpGateway, data: bytes, status: int
) -> None:
    async with await gateway.client() as client:
        await client.send(data)
        reply = await client.reply()
        assert (reply.status, reply.fields["Connection"]) == (status, "close")
        assert json.loads(reply.body)["statusCode"] == status
        await client.send(bytes(1000) + post())
        assert await client.rest() == b""
    assert gateway.extension.requests.empty()


@pytest.mark.parametrize("name", SMUGGLING)
async def test_smuggled_requests_go_nowhere(gateway: HttpGateway, name: str) -> None:
    async with await gateway.client() as client:
        await client.send(SMUGGLING[name] + 2 * post("/kp1/app-v1/tsx/smuggled"))
        reply = await client.reply()
        assert reply.status in (400, 501, 505)
        assert reply.fields["Connection"] == "close"
        assert await client.rest() == b""
    assert gateway.extension.requests.empty()
    assert gateway.worker.counters.by_protocol()["messages_in"]["http"] == 0


async def test_a_violation_is_answered_after_what_came_before_it(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await client.send(post(body=b"first") + b"nonsense\r\n\r\n" + post(body=b"never"))
        request = await gateway.extension.request()
        await gateway.extension.answer(request, b"first")
        assert (await client.reply()).body == b"first"
        assert (await client.reply()).status == 400
        assert await client.rest() == b""
    assert gateway.extension.requests.empty()


async def test_an_endpoint_that_is_not_identified_is_401(
    nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokens = tmp_path_factory.mktemp("identity") / "tokens.yml"
    tokens.write_text("endpoints:\n  app-v1:\n    known: endpoint-1\n")
    identity = IdentitySettings(provider="static", static=StaticIdentity(file=tokens))
    async with running_gateway(nats_server, identity=identity) as gateway, await gateway.client() as client:
        gateway.extension.echoes = True
        await client.send(post("/kp1/app-v1/dcx/unknown") + post("/kp1/app-v1/dcx/known", b"next"))
        reply = await client.reply()
        assert (reply.status, json.loads(reply.body)["statusCode"]) == (401, 401)
        assert reply.fields["WWW-Authenticate"] == 'EndpointToken realm="kp1"'
        assert (await client.reply()).body == b"next"
        assert sum(table.count() for table in gateway.worker.pending.values()) == 0


async def test_nobody_serves_the_extension(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        for _ in range(2):
            await client.send(post("/kp1/app-v1/absent/token"))
            reply = await client.reply()
            assert (reply.status, reply.fields["Retry-After"]) == (503, "1")
            assert json.loads(reply.body)["statusCode"] == 503
    assert sum(table.count() for table in gateway.worker.pending.values()) == 0


async def test_no_answer_in_time(nats_server: NatsServer) -> None:
    async with (
        running_gateway(nats_server, response_timeout=0.2) as gateway,
        await gateway.client() as client,
    ):
        await client.send(post())
        late = await gateway.extension.request()
        reply = await client.reply()
        assert (reply.status, json.loads(reply.body)["statusCode"]) == (504, 504)
        await client.send(post())
        await gateway.extension.answer(late, b"late")
        await gateway.extension.answer(await gateway.extension.request(), b"in time")
        assert (await client.reply()).body == b"in time"
        assert gateway.counted("dropped", "late_answer") == 1


async def test_many_wait_and_are_answered_in_any_order(nats_server: NatsServer) -> None:
    """More than the table of waiting requests begins with, on connections whose sequences are alike."""
    async with running_gateway(nats_server) as gateway, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await gateway.client()) for _ in range(40)]
        for number, client in enumerate(clients):
            for turn in range(8):
                await client.send(post(f"/kp1/app-v1/dcx/t{number}/json", b"%d/%d" % (number, turn)))
        requests = [await gateway.extension.request() for _ in range(8 * len(clients))]
        assert sum(table.count() for table in gateway.worker.pending.values()) == len(requests)
        random.Random(1).shuffle(requests)
        for request in requests:
            await gateway.extension.answer(request, request[0].payload)
        for number, client in enumerate(clients):
            for turn in range(8):
                assert (await client.reply()).body == b"%d/%d" % (number, turn)
        assert sum(table.count() for table in gateway.worker.pending.values()) == 0


async def test_more_requests_than_may_wait(nats_server: NatsServer) -> None:
    limits = Limits(pending_requests=1)
    async with running_gateway(nats_server, limits=limits) as gateway, await gateway.client() as client:
        await client.send(2 * post())
        await gateway.extension.answer(await gateway.extension.request(), b"first")
        assert (await client.reply()).body == b"first"
        reply = await client.reply()
        assert (reply.status, reply.fields["Retry-After"]) == (503, "1")
        assert sum(table.count() for table in gateway.worker.pending.values()) == 0


async def test_nats_is_away(nats_server: NatsServer) -> None:
    async with running_gateway(nats_server) as gateway, await gateway.client() as client:
        nats_server.kill()
        while gateway.worker.link.ready:
            await asyncio.sleep(0.01)
        await client.send(post())
        reply = await client.reply()
        assert (reply.status, reply.fields["Retry-After"]) == (503, "1")
        assert sum(table.count() for table in gateway.worker.pending.values()) == 0
