"""Requests to another service over the control connection, on a real NATS server: answered, unanswered, tried again."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fastavro
import pytest
from kaa_gateway.bus import requests as requests_module
from kaa_gateway.bus.connector import TlsOptions
from kaa_gateway.bus.control import Control
from kaa_gateway.bus.flushing import flush
from kaa_gateway.bus.messages import Exchange, Kind, MessageType
from kaa_gateway.bus.requests import Requests
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.esp import until
from tests.support.nats import NatsServer

QUESTION = MessageType("test", "Question", text="string")
ANSWER = MessageType("test", "Answer", text="string")
EXCHANGE = Exchange(Kind("question", QUESTION), Kind("answer", ANSWER))
SUBJECT = "kaa.v1.service.oracle.test.question"
REPLY = "kaa.v1.replica.us.test.answer"
PATIENCE = 60.0
"""Seconds for what must come; nothing here waits so long."""

Handle = Callable[[dict[str, Any], Msg], Any]


@asynccontextmanager
async def asking(server: NatsServer) -> AsyncIterator[tuple[Control, Requests]]:
    control = Control((server.url,), name="test", tls=TlsOptions(), credentials=None)
    requests = Requests(control, "us", "oracle", "test", EXCHANGE)
    control.start()
    try:
        await until(lambda: control.connected, "the control connection")
        yield control, requests
    finally:
        await control.stop()


@asynccontextmanager
async def oracle(server: NatsServer, handle: Handle) -> AsyncIterator[Client]:
    """A service that answers questions by `handle`."""
    client = Client()
    await client.connect(server.url, allow_reconnect=False)

    async def receive(message: Msg) -> None:
        await handle(QUESTION.decode(message.data), message)

    await client.subscribe(SUBJECT, "oracle", receive)
    await flush(client)
    try:
        yield client
    finally:
        await client.close()


async def echo(fields: dict[str, Any], message: Msg) -> None:
    await message.respond(ANSWER.encode(correlation_id=fields["correlationId"], text=fields["text"]))


async def test_each_question_gets_its_own_answer(shared_nats: NatsServer) -> None:
    """However the answers are ordered: they are told apart by correlation ID."""
    held: list[tuple[dict[str, Any], Msg]] = []

    async def backwards(fields: dict[str, Any], message: Msg) -> None:
        assert message.reply == REPLY
        held.append((fields, message))
        if len(held) == 10:
            for each in reversed(held):
                await echo(*each)

    async with asking(shared_nats) as (_, requests), oracle(shared_nats, backwards):
        answers = await asyncio.gather(*(requests.ask(PATIENCE, text=str(n)) for n in range(10)))
    assert [answer["text"] for answer in answers] == [str(n) for n in range(10)]
    assert len({fields["correlationId"] for fields, _ in held}) == 10


async def test_a_service_that_comes_later_is_asked_again(shared_nats: NatsServer) -> None:
    """NATS reports at once that nobody takes it."""
    async with asking(shared_nats) as (_, requests):
        asked = asyncio.create_task(requests.ask(PATIENCE, text="hello"))
        await until(lambda: requests.unanswered > 1, "two attempts")
        async with oracle(shared_nats, echo):
            assert (await asked)["text"] == "hello"


async def test_a_lost_question_is_sent_again(
    shared_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "ATTEMPT_TIMEOUT", 0.05)
    heard: list[str] = []

    async def deaf_at_first(fields: dict[str, Any], message: Msg) -> None:
        heard.append(fields["correlationId"])
        if len(heard) == 3:
            await echo(fields, message)

    async with asking(shared_nats) as (_, requests), oracle(shared_nats, deaf_at_first):
        assert (await requests.ask(PATIENCE, text="hello"))["text"] == "hello"
    assert len(heard) >= 3
    assert len(set(heard)) == 1, "one question, one correlation ID"


async def test_silence_ends_when_the_time_is_over(shared_nats: NatsServer) -> None:
    async def silent(fields: dict[str, Any], message: Msg) -> None:
        assert fields["timeout"] == 200

    async with asking(shared_nats) as (_, requests), oracle(shared_nats, silent):
        with pytest.raises(TimeoutError):
            await requests.ask(0.2, text="hello")


async def test_what_is_no_answer_is_dropped_and_counted(shared_nats: NatsServer) -> None:
    async def babble(fields: dict[str, Any], message: Msg) -> None:
        await message.respond(b"\xff\xff")
        await message.respond(b"")
        await message.respond(ANSWER.encode(correlation_id="somebody else's", text="no"))
        stale = {"correlationId": fields["correlationId"], "timestamp": 1, "timeout": 1, "text": "stale"}
        await message.respond(schemaless(stale))
        await echo(fields, message)
        await echo(fields, message)

    async with asking(shared_nats) as (_, requests), oracle(shared_nats, babble):
        assert (await requests.ask(PATIENCE, text="hello"))["text"] == "hello"
        assert requests.malformed == 3


def schemaless(fields: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, ANSWER.schema, fields)
    return out.getvalue()


async def test_nats_may_be_away_for_a_while(nats_server: NatsServer) -> None:
    async with asking(nats_server) as (control, requests):
        reconnected: list[None] = []
        control.when_reconnected(lambda: reconnected.append(None))
        nats_server.kill()
        await until(lambda: not control.connected, "the loss")
        with pytest.raises(TimeoutError):
            await requests.ask(0.3, text="nobody hears it")
        asked = asyncio.create_task(requests.ask(PATIENCE, text="hello"))
        nats_server.start()
        async with oracle(nats_server, echo):
            assert (await asked)["text"] == "hello"
            await until(lambda: bool(reconnected), "the report")


async def test_a_handler_that_fails_does_not_end_its_subscription(shared_nats: NatsServer) -> None:
    control = Control((shared_nats.url,), name="test", tls=TlsOptions(), credentials=None)
    heard: list[bytes] = []

    def handle(subject: str, datum: bytes) -> None:
        heard.append(datum)
        raise ValueError("a bug")

    control.subscribe("kaa.v1.events.*.thing.happened", handle)
    control.start()
    try:
        await until(lambda: control.connected, "the control connection")
        client = Client()
        await client.connect(shared_nats.url)
        while len(heard) < 2:
            await client.publish("kaa.v1.events.any.thing.happened", b"datum")
            await flush(client)
        await client.close()
    finally:
        await control.stop()
