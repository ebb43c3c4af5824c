"""What an extension publishes over the link (`Outgoing`), and what it receives, on a real NATS server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from kaa_ext import Extension, NotDelivered, PayloadTooLarge
from kaa_ext.sdk import connection
from kaa_ext.sdk.outgoing import Outgoing
from kaa_gateway.bus.flushing import flush
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.esp import until
from tests.support.links import connecting, up
from tests.support.nats import NatsServer

BYTES_MAX = 64 * 1024
SUBSCRIPTIONS = 120


class Sender:
    """An `Outgoing` on a link, with what it has been told."""

    def __init__(self) -> None:
        self.full: list[bool] = []
        self.lost = 0
        self.connects = 0
        self.outgoing = Outgoing(BYTES_MAX, self.full.append, self._lose, self._connect)

    def _lose(self) -> None:
        self.lost += 1

    def _connect(self) -> None:
        self.connects += 1


@asynccontextmanager
async def listener(url: str, subject: str) -> AsyncIterator[tuple[Client, list[Msg]]]:
    """A nats-py client and what it receives on a subject."""
    client = await nats.connect(url, reconnect_time_wait=0.1, max_reconnect_attempts=-1)
    received: list[Msg] = []

    async def take(message: Msg) -> None:
        received.append(message)

    await client.subscribe(subject, cb=take)
    await flush(client)
    try:
        yield client, received
    finally:
        await client.close()


async def test_messages_arrive_with_reply_and_headers(nats_server: NatsServer) -> None:
    sender = Sender()
    async with listener(nats_server.url, "out.>") as (_, received), connecting(nats_server.url) as (link, _):
        sender.outgoing.use(link)
        await up(link)
        sender.outgoing.send("out.plain", b"")
        sender.outgoing.send("out.reply", b"x" * 1000, "back.to.me")
        sender.outgoing.send("out.headers", b"\r\n\x00", "", {"Nats-Msg-Id": "7", "Name": "wörter"})
        sender.outgoing.send("out.both", b"y", "back", {"A": ""})
        await until(lambda: len(received) == 4, "the messages")
    assert [(each.subject, each.data, each.reply) for each in received] == [
        ("out.plain", b"", ""),
        ("out.reply", b"x" * 1000, "back.to.me"),
        ("out.headers", b"\r\n\x00", ""),
        ("out.both", b"y", "back"),
    ]
    assert (received[2].headers or {})["Nats-Msg-Id"] == "7"
    assert received[1].headers is None


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB x 0", "a\tb", "a\n", "a\x00"])
async def test_no_subject_ends_the_protocol_line(nats_server: NatsServer, subject: str) -> None:
    sender = Sender()
    async with listener(nats_server.url, ">") as (_, received), connecting(nats_server.url) as (link, _):
        sender.outgoing.use(link)
        await up(link)
        with pytest.raises(NotDelivered):
            sender.outgoing.send(subject, b"x")
        if subject:
            with pytest.raises(NotDelivered):
                sender.outgoing.send("fine", b"x", subject)
        with pytest.raises(NotDelivered):
            sender.outgoing.send("fine", b"x", "", {"Name": "v\r\nOther: w"})
        with pytest.raises(NotDelivered):
            sender.outgoing.send("fine", b"x", "", {"Na\nme": "v"})
        sender.outgoing.send("end", b"")
        await until(lambda: any(each.subject == "end" for each in received), "the last")
    assert [each.subject for each in received if not each.subject.startswith("$")] == ["end"]


async def test_without_a_link_nothing_is_sent() -> None:
    sender = Sender()
    with pytest.raises(NotDelivered, match="not connected"):
        sender.outgoing.send("subject", b"x")


async def test_a_message_larger_than_nats_takes_is_refused_at_the_byte(nats_server: NatsServer) -> None:
    sender = Sender()
    sender.outgoing = Outgoing(8 * 1024 * 1024, sender.full.append, sender._lose, sender._connect)
    async with listener(nats_server.url, "out") as (_, received), connecting(nats_server.url) as (link, _):
        sender.outgoing.use(link)
        await up(link)
        sender.outgoing.send("out", bytes(1024 * 1024))
        with pytest.raises(PayloadTooLarge):
            sender.outgoing.send("out", bytes(1024 * 1024 + 1))
        await until(lambda: len(received) == 1, "the largest message")
        assert len(received[0].data) == 1024 * 1024


async def test_unconfirmed_bytes_have_a_bound_and_what_was_taken_arrives(nats_server: NatsServer) -> None:
    """NATS is away: messages are kept up to the bound, and arrive in order when it is back. Those to inboxes do not."""
    sender = Sender()
    async with (
        listener(nats_server.url, "out.>") as (client, received),
        connecting(nats_server.url) as (link, _),
    ):
        sender.outgoing.use(link)
        await up(link)
        nats_server.kill()
        await until(lambda: not link.ready, "the end of the connection")
        taken = 0
        while link.backlog <= BYTES_MAX - 1100:
            sender.outgoing.send("out.kept", b"%d" % taken + bytes(1000))
            taken += 1
        with pytest.raises(NotDelivered, match="too many"):
            sender.outgoing.send("out.kept", bytes(1100))
        assert BYTES_MAX - 2100 < link.backlog <= BYTES_MAX + 100
        assert taken >= BYTES_MAX // 1100
        nats_server.start()
        await until(lambda: link.ready and client.is_connected, "the connections")
        await until(lambda: link.backlog == 0, "the confirmation")
        sender.outgoing.send("out.end", b"")
        await until(lambda: bool(received) and received[-1].subject == "out.end", "the last")
        assert sender.connects == 2
    numbers = [int(each.data.rstrip(b"\0")) for each in received if each.subject == "out.kept"]
    assert numbers == sorted(set(numbers))
    # The listener may have come back after the first of them.
    assert numbers == list(range(taken))[len(range(taken)) - len(numbers) :]


async def test_an_extension_keeps_no_more_than_its_bound(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OUTGOING_BYTES", BYTES_MAX)
    extension = Extension("svc", nats_urls=[nats_server.url])
    async with extension:
        assert extension.obstacles == []
        nats_server.kill()
        await until(lambda: bool(extension.obstacles), "the end of the connection")
        assert extension.obstacles == ["svc is not connected to NATS"]
        while extension.unconfirmed_bytes <= BYTES_MAX - 1500:
            await extension.push("endpoint", "/json", bytes(1000))
        with pytest.raises(NotDelivered):
            await extension.push("endpoint", "/json", bytes(1500))
        pushes = extension.stats["pushes"]
        assert BYTES_MAX - 2500 < extension.unconfirmed_bytes <= BYTES_MAX + 100
        nats_server.start()
        await until(lambda: not extension.obstacles and extension.unconfirmed_bytes == 0, "the confirmation")
        await extension.push("endpoint", "/json", b"x")
        assert extension.stats["pushes"] == pushes + 1


async def test_many_subscriptions_each_get_their_own_messages(nats_server: NatsServer) -> None:
    """Subscription IDs have one digit, two and three."""
    extension = Extension("svc", nats_urls=[nats_server.url])
    seen: dict[int, list[tuple[str, bytes]]] = {number: [] for number in range(SUBSCRIPTIONS)}
    for number, messages in seen.items():

        def note(message: Msg, messages: list[tuple[str, bytes]] = messages) -> None:
            messages.append((message.subject, message.data))

        extension.subscribe(f"many.{number}", note, shared=bool(number % 2))
    async with extension:
        client = await nats.connect(nats_server.url)
        for text in (b"1", b"2"):
            for number in range(SUBSCRIPTIONS):
                await client.publish(f"many.{number}", text, headers={"A": "b"} if number % 3 else None)
        await flush(client)
        await until(lambda: sum(map(len, seen.values())) == 2 * SUBSCRIPTIONS, "all messages")
        await client.close()
        nats_server.kill()
        nats_server.start()
        await until(lambda: extension.connects == 2, "the next connection")
        client = await nats.connect(nats_server.url)
        for number in range(SUBSCRIPTIONS):
            await client.publish(f"many.{number}", b"3")
        await flush(client)
        await until(lambda: sum(map(len, seen.values())) == 3 * SUBSCRIPTIONS, "all messages again")
        await client.close()
    for number, messages in seen.items():
        assert messages == [(f"many.{number}", text) for text in (b"1", b"2", b"3")]


async def test_a_drain_waits_for_the_confirmation_of_what_was_sent(nats_server: NatsServer) -> None:
    extension = Extension("svc", nats_urls=[nats_server.url])
    async with listener(nats_server.url, "kaa.v1.service.kpc.esp.ExtensionData") as (_, received):
        async with extension:
            for number in range(500):
                await extension.push("endpoint", "/json", b"%d" % number)
        await until(lambda: len(received) == 500, "all pushes")
    assert extension.unconfirmed_bytes == 0
    assert not extension.stats["undelivered"]
    await asyncio.sleep(0)
