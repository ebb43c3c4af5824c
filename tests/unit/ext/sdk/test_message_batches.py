"""Subscribers that take lists of messages: what a list has, the bound, and the drain."""

import asyncio

import pytest
from kaa_ext import Extension
from kaa_ext.sdk import extension as sdk
from kaa_ext.sdk.message_batches import BATCH_MAX
from kaa_ext.testing import offline, until
from nats.aio.msg import Msg

SUBJECT = "news"


class Reader:
    """A subscriber that notes its lists, and does not return before it is released."""

    def __init__(self) -> None:
        self.lists: list[list[bytes]] = []
        self.release = asyncio.Event()

    async def __call__(self, messages: list[Msg]) -> None:
        self.lists.append([message.data for message in messages])
        await self.release.wait()
        if b"bad" in self.lists[-1]:
            raise ZeroDivisionError


async def test_messages_of_a_turn_are_a_list_and_those_of_a_call_the_next() -> None:
    extension, reader = Extension("svc"), Reader()
    extension.subscribe_batch(SUBJECT, reader)
    async with offline(extension) as gateway:
        for number in range(3):
            await gateway.publish(SUBJECT, b"%d" % number)
        await until(lambda: len(reader.lists) == 1, "the first call")
        for number in range(BATCH_MAX + 1):
            await gateway.publish(SUBJECT, b"%d" % number)
        await until(lambda: extension.waiting == BATCH_MAX + 1, "the others to wait")
        assert reader.lists == [[b"0", b"1", b"2"]]
        reader.release.set()
        await until(lambda: len(reader.lists) == 3, "the other calls")
        assert list(map(len, reader.lists)) == [3, BATCH_MAX, 1]
        assert reader.lists[2] == [b"%d" % BATCH_MAX]
    assert extension.stats["messages"] == 3 + BATCH_MAX + 1
    assert extension.stats["failed"] == extension.stats["overrun"] == 0


async def test_a_call_that_fails_does_not_end_the_subscription() -> None:
    extension, reader = Extension("svc"), Reader()
    reader.release.set()
    extension.subscribe_batch(SUBJECT, reader)
    async with offline(extension) as gateway:
        for text in (b"bad", b"good"):
            await gateway.publish(SUBJECT, text)
            await until(lambda text=text: [text] in reader.lists, "a call")  # type: ignore[misc]
    assert extension.stats["failed"] == 1


@pytest.mark.parametrize(("limit", "value"), [("PENDING_MESSAGES", 5), ("PENDING_BYTES", 50)])
async def test_messages_beyond_the_bound_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(sdk, limit, value)
    extension, reader = Extension("svc"), Reader()
    extension.subscribe_batch(SUBJECT, reader)
    async with offline(extension) as gateway:
        await gateway.publish(SUBJECT, b"first")
        await until(lambda: len(reader.lists) == 1, "the first call")
        for number in range(8):
            await gateway.publish(SUBJECT, b"%10d" % number)
        await until(lambda: extension.stats["messages"] == 9, "all to come")
        assert (extension.waiting, extension.stats["overrun"]) == (5, 3)
        reader.release.set()
        await until(lambda: extension.waiting == 0, "the second call")
        assert reader.lists[1] == [b"%10d" % number for number in range(5)]
        await gateway.publish(SUBJECT, b"last")
        await until(lambda: len(reader.lists) == 3, "the third call")


async def test_a_drain_waits_for_what_was_received() -> None:
    extension, reader = Extension("svc"), Reader()
    extension.subscribe_batch(SUBJECT, reader)
    async with offline(extension) as gateway:
        await gateway.publish(SUBJECT, b"1")
        await until(lambda: len(reader.lists) == 1, "the first call")
        await gateway.publish(SUBJECT, b"2")
        await until(lambda: extension.waiting == 1, "the other")
        stopping = asyncio.create_task(extension.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        reader.release.set()
        await stopping
    assert reader.lists == [[b"1"], [b"2"]]
    assert extension.stats["abandoned"] == 0
