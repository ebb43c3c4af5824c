"""Requests that wait for a push: `?wait=` in the query of a POST.

Source: docs/devices.md, "Wait for a push".
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from kaa_gateway.kp.revocation import Revocation
from kaa_gateway.kp.session import Session

from tests.support.esp import until
from tests.support.http_gateway import HttpGateway, RawClient, post, running_gateway
from tests.support.nats import NatsServer
from tests.support.slices import finished
from tests.support.waiting import PATH, dropped, present, push, send_and_wait, wait_for_push


@pytest.fixture
async def gateway(shared_nats: NatsServer) -> AsyncIterator[HttpGateway]:
    async with running_gateway(shared_nats, max_wait=20) as found:
        yield found


@pytest.fixture
async def client(gateway: HttpGateway) -> AsyncIterator[RawClient]:
    async with await gateway.client() as found:
        yield found


async def test_the_first_push_answers(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client)
    await push(gateway, payload=b'{"open": true}')
    reply = await client.reply()
    assert (reply.status, reply.body) == (200, b'{"open": true}')
    assert reply.fields["Kaa-Resource-Path"] == "/command"
    assert present(gateway) == 1  # it is watched
    await push(gateway)
    await dropped(gateway, 1)


async def test_the_extension_gets_the_message_and_sees_how_long_the_device_waits(
    gateway: HttpGateway, client: RawClient
) -> None:
    await client.send(post(f"{PATH}?wait=7", b"hello"))
    request, _ = await gateway.extension.request()
    assert (request.payload, request.request_id, request.timeout) == (b"hello", None, 7000)
    assert request.resource_path == "/command"


async def test_a_token_that_looks_like_a_request_id(gateway: HttpGateway, client: RawClient) -> None:
    await client.send(post("/kp1/app-v1/dcx/41?wait=20"))
    await gateway.extension.request()
    endpoints = gateway.worker.sessions.endpoints
    await until(lambda: (found := endpoints.get(b"41")) is not None and found.present_count > 1, "it to wait")
    await push(gateway, endpoint_id="41")
    assert (await client.reply()).status == 200


async def test_a_long_wait_is_cut(gateway: HttpGateway, client: RawClient) -> None:
    await client.send(post(f"{PATH}?wait=99999"))
    request, _ = await gateway.extension.request()
    assert request.timeout == 20_000


async def test_without_a_push_it_is_204_at_the_deadline(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client, "wait=1")
    reply = await client.reply()
    assert (reply.status, reply.body) == (204, b"")
    assert "Kaa-Resource-Path" not in reply.fields
    await wait_for_push(gateway, client)  # the connection goes on
    await push(gateway)
    assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    ("path", "extension", "taken"),
    [
        ("/command", "dcx", True),
        ("/command/reboot", "dcx", True),
        ("command/reboot", None, True),
        ("/commands", "dcx", False),
        ("/comm", "dcx", False),
        ("/", "dcx", False),
        ("/command", "tsx", False),
    ],
)
async def test_a_push_for_its_resource_path_or_below_answers(
    gateway: HttpGateway, client: RawClient, path: str, extension: str | None, taken: bool
) -> None:
    await wait_for_push(gateway, client)
    await push(gateway, path, extension=extension)
    if taken:
        assert (await client.reply()).fields["Kaa-Resource-Path"] == path
        return
    await dropped(gateway, 1)
    await push(gateway)
    assert (await client.reply()).fields["Kaa-Resource-Path"] == "/command"


async def test_an_empty_resource_path_is_for_all_of_the_extension(
    gateway: HttpGateway, client: RawClient
) -> None:
    await client.send(post("/kp1/app-v1/dcx/token?wait=20"))
    await gateway.extension.request()
    await push(gateway, "/any/path")
    assert (await client.reply()).fields["Kaa-Resource-Path"] == "/any/path"


async def test_pushes_of_other_endpoints_do_not_answer(gateway: HttpGateway, client: RawClient) -> None:
    """Also when a connection is used by several devices, as behind a proxy."""
    await client.send(post("/kp1/app-v1/dcx/other/command?answer=no"))
    await client.reply()
    await gateway.extension.request()
    await wait_for_push(gateway, client)
    await push(gateway, endpoint_id="other")
    await dropped(gateway, 1)
    await push(gateway, payload=b"mine")
    assert (await client.reply()).body == b"mine"


async def test_an_error_is_an_error(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client)
    await push(gateway, payload=b"", status=410, phrase="Gone")
    reply = await client.reply()
    assert (reply.status, reply.phrase) == (410, "Gone")
    assert reply.fields["Kaa-Resource-Path"] == "/command"


async def test_an_answer_of_the_extension_ends_the_wait(gateway: HttpGateway, client: RawClient) -> None:
    await client.send(post(f"{PATH}?wait=20"))
    await gateway.extension.answer(await gateway.extension.request(), b"bad", 400, "Bad")
    reply = await client.reply()
    assert reply.status == 400
    assert "Kaa-Resource-Path" not in reply.fields
    await until(lambda: present(gateway) == 1, "the wait to end")


async def test_what_the_gateway_refuses_does_not_wait(gateway: HttpGateway, client: RawClient) -> None:
    for path, status in (
        (f"{PATH}?wait=0", 400),
        (f"{PATH}?wait=", 400),
        (f"{PATH}?wait=1.5", 400),
        (f"{PATH}?wait=123456", 400),
        (f"{PATH}?answer=no&wait=-1", 400),
        ("/kp1/app-v1/tsx/time?wait=5", 400),
        ("/kp1/app-v1/tsx?wait=5", 400),
        ("/kp1/app-v1/tsx/41?wait=5", 400),
        ("/kp1/app-v1/absent/token/x?wait=5", 503),
        ("/kp1/app-v1/unknown/token/x?wait=5", 404),
    ):
        await client.send(post(path))
        assert (await client.reply()).status == status, path
    for _ in range(3):
        await gateway.extension.request()  # those of tsx
    await client.send(post(f"{PATH}?waits=5&wait"))  # other parameters
    await gateway.extension.answer(await gateway.extension.request(), b"answer")
    assert (await client.reply()).body == b"answer"


async def test_a_connection_waits_once(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client)
    await client.send(post(f"{PATH}?wait=20"))
    await push(gateway)
    assert (await client.reply()).status == 200
    reply = await client.reply()
    assert (reply.status, reply.phrase) == (400, "A request of this connection waits already")


async def test_a_request_before_it_is_answered_first(gateway: HttpGateway, client: RawClient) -> None:
    await client.send(post(PATH, b"first") + post(f"{PATH}?wait=20"))
    first = await gateway.extension.request()
    await gateway.extension.request()
    await push(gateway, payload=b"pushed")
    await gateway.extension.answer(first, b"answered")
    assert (await client.reply()).body == b"answered"
    assert (await client.reply()).body == b"pushed"


async def test_the_end_of_the_connection_ends_the_wait(gateway: HttpGateway) -> None:
    async with await gateway.client() as client:
        await wait_for_push(gateway, client)
    await until(lambda: present(gateway) == 1, "the wait to end")
    await push(gateway)
    await dropped(gateway, 1)


async def test_a_header_field_cannot_be_broken(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client)
    await push(gateway, "/command/\r\nX-Evil: 1/\u00fc%")
    reply = await client.reply()
    assert reply.fields["Kaa-Resource-Path"] == "/command/%0D%0AX-Evil:%201/%C3%BC%25"


async def test_a_drain_answers_at_once(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats) as gateway, await gateway.client() as client:
        await wait_for_push(gateway, client, "wait=200")
        stopping = asyncio.create_task(gateway.worker.stop())
        reply = await client.reply()
        assert (reply.status, reply.fields["Connection"]) == (204, "close")
        await stopping


async def test_a_client_that_has_closed_its_sending_side_does_not_wait(
    gateway: HttpGateway, client: RawClient
) -> None:
    """It is most likely gone, and a push would be lost."""
    await wait_for_push(gateway, client)
    client.writer.write_eof()
    assert (await client.reply()).status == 204
    assert await client.rest() == b""


async def test_a_drain_answers_on_a_connection_that_ends_with_the_request(shared_nats: NatsServer) -> None:
    async with running_gateway(shared_nats) as gateway, await gateway.client() as client:
        await send_and_wait(gateway, client, post(f"{PATH}?wait=200", fields="Connection: close\r\n"))
        stopping = asyncio.create_task(gateway.worker.stop())
        assert (await client.reply()).status == 204
        await stopping


async def test_a_revoked_token_ends_the_wait_at_once(gateway: HttpGateway, client: RawClient) -> None:
    await wait_for_push(gateway, client)
    assert (
        finished(
            Revocation(gateway.worker.sessions).revoke_tokens("token", frozenset({b"app-v1"}), frozenset())
        )
        == 1
    )
    reply = await client.reply()
    assert (reply.status, reply.body) == (204, b"")
    assert present(gateway) == 0


@pytest.mark.parametrize("fields", ["", "Connection: close\r\n"])
async def test_a_revoked_client_is_answered_and_disconnected(
    gateway: HttpGateway, client: RawClient, fields: str
) -> None:
    await send_and_wait(gateway, client, post(f"{PATH}?wait=200", fields=fields))
    session_of(gateway).disconnect("revoked")
    assert (await client.reply()).status == 204
    assert await client.rest() == b""


async def test_a_client_that_was_revoked_does_not_begin_to_wait(nats_server: NatsServer) -> None:
    """It is revoked after its request has come, and before NATS has the message."""
    async with running_gateway(nats_server) as gateway, await gateway.client() as client:
        os.kill(nats_server.pid, signal.SIGSTOP)
        await client.send(post(f"{PATH}?wait=200"))
        await until(lambda: gateway.worker.link.unconfirmed_count() > 0, "the message to be forwarded")
        session_of(gateway).disconnect("revoked")
        os.kill(nats_server.pid, signal.SIGCONT)
        assert (await client.reply()).status == 204
        assert await client.rest() == b""


def session_of(gateway: HttpGateway) -> Session:
    """Return the session of the only connection."""
    sessions = gateway.worker.sessions
    [session] = [each for slot in range(sessions.slot_count()) if (each := sessions.at(slot)) is not None]
    return session


async def test_a_parser_that_others_have_used_knows_nothing_of_them(gateway: HttpGateway) -> None:
    """A connection has a parser only while it does not wait."""
    async with await gateway.client() as first, await gateway.client() as second:
        for _ in range(2):
            for client in (first, second):
                await wait_for_push(gateway, client)
                await push(gateway, payload=b"x")
                assert (await client.reply()).status == 200
        await wait_for_push(gateway, first)
        await first.send(b"POST /kp1/app-v1/dcx/token/json HTTP/1.1\r\nHost: gateway\r\nContent-")
        await second.send(post("/kp1/app-v1/dcx/other/json", b"two"))
        await gateway.extension.request()
        await first.send(b"Length: 3\r\n\r\none")
        request, _ = await gateway.extension.request()
        assert (request.endpoint_id, request.payload) == ("token", b"one")
