"""The HTTP server over a socket, against a real nats-server: the order of responses, and when a connection ends.

Sections are those of RFC 9110.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.esp import until
from tests.support.http_gateway import HttpGateway, RawClient, post, running_gateway
from tests.support.nats import NatsServer


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


async def test_responses_leave_in_the_order_of_the_requests(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await client.send(b"".join(post(body=b"%d" % i) for i in range(4)) + post("/nowhere"))
        requests = [await gateway.extension.request() for _ in range(4)]
        for i in (2, 1, 3, 0):
            await gateway.extension.answer(requests[i], b"answer %d" % i)
        assert [(await client.reply()).body for _ in range(4)] == [b"answer %d" % i for i in range(4)]
        assert (await client.reply()).status == 404


async def test_one_answer_for_each_request(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await client.send(2 * post())
        first, second = [await gateway.extension.request() for _ in range(2)]
        for _ in range(2):
            await gateway.extension.answer(second, b"second")
        for _ in range(2):
            await gateway.extension.answer(first, b"first")
        assert [(await client.reply()).body for _ in range(2)] == [b"first", b"second"]
        await until(lambda: gateway.counted("dropped", "late_answer") == 2, "the second answer of each")


async def test_pipelined_requests_are_bounded(gateway: HttpGateway) -> None:
    count = 50
    async with await gateway.client() as client:
        await client.send(b"".join(post(body=b"%d" % i) for i in range(count)))
        for i in range(count):
            request = await gateway.extension.request()
            assert request[0].payload == b"%d" % i
            assert sum(table.count() for table in gateway.worker.pending.values()) <= 4
            assert gateway.extension.requests.qsize() < 4
            await gateway.extension.answer(request, request[0].payload)
        assert [(await client.reply()).body for _ in range(count)] == [b"%d" % i for i in range(count)]


async def test_more_is_read_when_the_pipeline_has_emptied(gateway: HttpGateway) -> None:
    gateway.extension.echoes = True
    body = bytes(50_000)
    async with await gateway.client() as client:
        sender = asyncio.create_task(client.send(100 * post(body=body)))
        for _ in range(100):
            assert len((await client.reply()).body) == len(body)
        await sender


@pytest.mark.parametrize(
    ("version", "field", "answered"),
    [("1.1", "", None), ("1.1", "Connection: close\r\n", "close"), ("1.0", "", "close"),
     ("1.0", "Connection: keep-alive\r\n", "keep-alive")],
)  # fmt: skip
async def test_persistence(gateway: HttpGateway, version: str, field: str, answered: str | None) -> None:
    gateway.extension.echoes = True
    head = f"POST /kp1/app-v1/tsx HTTP/{version}\r\nHost: a\r\n{field}Content-Length: 1\r\n\r\na"
    async with await gateway.client() as client:
        await client.send(2 * head.encode())
        assert (await client.reply()).fields.get("Connection") == answered
        if answered == "close":
            assert await client.rest() == b""
        else:
            assert (await client.reply()).body == b"a"


async def test_continue_is_sent_when_the_request_is_acceptable(gateway: HttpGateway) -> None:
    gateway.extension.echoes = True
    head = post(body=b"body", fields="Expect: 100-continue\r\n").removesuffix(b"body")
    async with await gateway.client() as client:
        await client.send(head)
        assert (await client.reply()).status == 100
        await client.send(b"body")
        assert (await client.reply()).body == b"body"
        await client.send(head + b"body")
        assert (await client.reply()).status == 200, "who has sent the body is not asked for it (10.1.1)"


async def test_continue_waits_for_the_responses_before_it(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await client.send(post(body=b"first") + post(body=b"body", fields="Expect: 100-continue\r\n")[:-4])
        request = await gateway.extension.request()
        await gateway.extension.answer(request, b"first")
        assert (await client.reply()).body == b"first"
        assert (await client.reply()).status == 100
        await client.send(b"body")
        await gateway.extension.answer(await gateway.extension.request(), b"second")
        assert (await client.reply()).body == b"second"


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [("/kp1/app-v1/tsx", 100_001, 413), ("/nowhere", 1, 404), ("/kp1/%00", 1, 400)],
)
async def test_an_expectation_is_refused_before_the_body(
    gateway: HttpGateway, path: str, length: int, status: int
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    async with await gateway.client() as client:
        await client.send(head.encode())
        reply = await client.reply()
        assert (reply.status, reply.fields["Connection"]) == (status, "close")


@pytest.mark.parametrize(
    "data",
    [post(body=b"body")[:-1], post()[:30], b"P", post(body=b"x", fields="Expect: 100-continue\r\n")[:-1]],
)
async def test_a_slow_sender_is_408(nats_server: NatsServer, data: bytes) -> None:
    async with running_gateway(nats_server, read_timeout=0.5) as gateway, await gateway.client() as client:
        await client.send(data)
        reply = await client.reply()
        if reply.status == 100:
            reply = await client.reply()
        assert (reply.status, reply.fields["Connection"]) == (408, "close")
        assert await client.rest() == b""
        assert gateway.extension.requests.empty()


async def test_idle_connections_end_silently(nats_server: NatsServer) -> None:
    async with running_gateway(nats_server, read_timeout=0.5, keep_alive_timeout=0.5) as gateway:
        gateway.extension.echoes = True
        async with await gateway.client() as silent, await gateway.client() as used:
            await used.send(post(body=b"body"))
            assert (await used.reply()).body == b"body"
            assert await used.rest() == b""
            assert await silent.rest() == b""


async def test_waiting_for_an_answer_is_not_idle(nats_server: NatsServer) -> None:
    async with (
        running_gateway(nats_server, read_timeout=0.1, keep_alive_timeout=0.1) as gateway,
        await gateway.client() as client,
    ):
        await client.send(post())
        request = await gateway.extension.request()
        await asyncio.sleep(2.5)
        await gateway.extension.answer(request, b"late but in time")
        assert (await client.reply()).body == b"late but in time"


async def test_a_client_that_has_gone_leaves_nothing_behind(shared_nats: NatsServer) -> None:
    """Its FIN says only that it sends no more: its requests wait until their time is over."""
    async with running_gateway(shared_nats, response_timeout=1.0) as gateway:
        async with await gateway.client() as client:
            await client.send(2 * post())
            request = await gateway.extension.request()
            waiting = sum(table.count() for table in gateway.worker.pending.values())
            assert (gateway.worker.sessions.count, waiting) == (1, 2)
        while gateway.worker.sessions.count:
            await asyncio.sleep(0.01)
        assert sum(table.count() for table in gateway.worker.pending.values()) == 0
        await gateway.extension.answer(request, b"nobody reads it")
        gateway.extension.echoes = True
        async with await gateway.client() as client:
            await client.send(post(body=b"other"))
            assert (await client.reply()).body == b"other"
        assert gateway.counted("dropped", "late_answer") == 1


async def test_drain_ends_idle_connections_and_finishes_requests(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats) as gateway:
        idle, half, busy = [await gateway.client() for _ in range(3)]
        await busy.send(post())
        request = await gateway.extension.request()
        await half.send(post(body=b"half")[:-2])
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(gateway.worker.stop())
        assert await idle.rest() == b""
        await half.send(b"lf")
        other = await gateway.extension.request()
        await gateway.extension.answer(other, b"half")
        await gateway.extension.answer(request, b"busy")
        for client, body in ((half, b"half"), (busy, b"busy")):
            reply = await client.reply()
            assert (reply.body, reply.fields["Connection"]) == (body, "close")
            assert await client.rest() == b""
        await stopping


async def test_an_upload_under_way_is_finished_while_nothing_else_is(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats) as gateway:
        client = await gateway.client()
        await client.send(post(body=b"half")[:-2])
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(gateway.worker.stop())
        await asyncio.sleep(0.5)
        await client.send(b"lf")
        request = await gateway.extension.request()
        assert request[0].payload == b"half"
        await gateway.extension.answer(request, b"answer")
        reply = await client.reply()
        assert (reply.body, reply.fields["Connection"]) == (b"answer", "close")
        assert await client.rest() == b""
        await stopping


async def test_what_is_unfinished_when_the_drain_ends_is_503(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats, graceful_shutdown=2, pipelined_requests=2) as gateway:
        waiting, full, half, both, continued = [await gateway.client() for _ in range(5)]
        await waiting.send(2 * post())
        await full.send(3 * post())
        await half.send(post(body=b"half")[:-2])
        await both.send(post() + post(body=b"half")[:-2])
        await continued.send(post(body=b"x", fields="Expect: 100-continue\r\n")[:-1])
        assert (await continued.reply()).status == 100
        for _ in range(5):
            await gateway.extension.request()
        stopping = asyncio.create_task(gateway.worker.stop())
        for client, count in ((waiting, 2), (full, 3), (half, 1), (both, 2), (continued, 1)):
            replies = [await client.reply() for _ in range(count)]
            assert [reply.status for reply in replies] == count * [503]
            assert [reply.fields.get("Connection") for reply in replies] == [*(count - 1) * [None], "close"]
            assert replies[0].fields["Retry-After"] == "1"
            assert await client.rest() == b""
        assert gateway.counted("refused", "draining") == 6
        await stopping


async def test_requests_that_are_held_when_a_drain_begins_are_finished(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats, pipelined_requests=2) as gateway:
        whole, partly = await gateway.client(), await gateway.client()
        bodies = [b"%d" % number for number in range(7)]
        sent = b"".join(post(body=body) for body in bodies)
        await whole.send(sent)
        taken = [await gateway.extension.request() for _ in range(2)]
        await partly.send(sent[:-1])
        taken += [await gateway.extension.request() for _ in range(2)]
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(gateway.worker.stop())
        await asyncio.sleep(0.1)
        for number in range(2 * len(bodies)):
            if number >= len(taken):
                taken.append(await gateway.extension.request())
            await gateway.extension.answer(taken[number], taken[number][0].payload)
            if number == 2 * len(bodies) - 2:
                await partly.send(sent[-1:])
        for client in (whole, partly):
            replies = [await client.reply() for _ in bodies]
            assert [reply.body for reply in replies] == bodies
            assert [reply.fields.get("Connection") for reply in replies] == [*6 * [None], "close"]
            assert await client.rest() == b""
        await stopping


@pytest.mark.parametrize("cut", [0, 1, 40])
async def test_requests_that_are_held_when_the_drain_ends_are_503(shared_nats: NatsServer, cut: int) -> None:
    """Also the last one, of which a part has come."""
    async with running_gateway(shared_nats, graceful_shutdown=2, pipelined_requests=4) as gateway:
        client = await gateway.client()
        sent = b"".join(post(body=b"body") for _ in range(20))
        await client.send(sent[: len(sent) - cut])
        answered = await gateway.extension.request()
        stopping = asyncio.create_task(gateway.worker.stop())
        await gateway.extension.answer(answered, b"in time")
        assert (await client.reply()).body == b"in time"
        replies = [await client.reply() for _ in range(19)]
        assert [reply.status for reply in replies] == 19 * [503]
        assert [reply.fields.get("Connection") for reply in replies] == [*18 * [None], "close"]
        assert await client.rest() == b""
        await stopping


# Whatever comes


@given(pieces=st.lists(st.binary(max_size=200), max_size=5), mangled=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_end_the_connection_or_wait(
    gateway: HttpGateway, pieces: list[bytes], mangled: bool
) -> None:
    gateway.extension.echoes = True
    async with await gateway.client() as client:
        await client.send(post(body=b"x")[: 60 if mangled else None])
        for piece in pieces:
            await client.send(piece)
        client.writer.write_eof()
        answered = await client.rest()
        assert answered == b"" or answered.startswith(b"HTTP/1.1 ")
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post(body=b"still there"))
        assert (await client.reply()).body == b"still there"
