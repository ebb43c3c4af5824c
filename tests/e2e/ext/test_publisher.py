"""Publications and requests to JetStream with many acknowledgements outstanding."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kaa_ext import Extension
from kaa_ext.sdk.errors import Conflict, StateUnavailable
from kaa_ext.sdk.publisher import Publication, Publisher
from kaa_ext.testing import online
from nats.aio.msg import Msg

STREAM = "kept"


@pytest.fixture
async def extension() -> AsyncIterator[Extension]:
    """An extension beside a stream."""
    extension = Extension("svc")
    async with online(extension):
        await extension.jetstream().add_stream(name=STREAM, subjects=["kept.>"])
        yield extension


async def test_messages_are_stored_in_order_and_each_has_its_sequence(extension: Extension) -> None:
    publications = [Publication("kept.a", b"%d" % number) for number in range(2000)]
    sequences = await extension.publisher.publish_all(publications)
    assert sequences == list(range(1, 2001))
    assert extension.publisher.outstanding == 0
    for number in (1, 1000, 2000):
        stored = await extension.jetstream().get_msg(STREAM, number)
        assert stored.data == b"%d" % (number - 1)


async def test_a_message_that_is_published_again_is_stored_once(extension: Extension) -> None:
    publication = Publication("kept.a", b"x", {"Nats-Msg-Id": "one"})
    assert await extension.publisher.publish_all([publication, publication]) == [1, 1]


async def test_each_message_of_a_batch_has_its_own_error(extension: Extension) -> None:
    expected = {"Nats-Expected-Last-Subject-Sequence": "7"}
    first, second, third = await extension.publisher.publish_all(
        [Publication("kept.a", b""), Publication("kept.a", b"", expected), Publication("nowhere.a", b"")]
    )
    assert first == 1
    assert isinstance(second, Conflict)
    assert isinstance(third, StateUnavailable)
    with pytest.raises(Conflict):
        await extension.publisher.publish("kept.a", b"", expected)


class Silent:
    """A NATS that keeps what it gets until it is asked to answer."""

    def __init__(self) -> None:
        self.replies: list[str] = []

    async def publish(self, subject: str, payload: bytes, reply: str = "", headers: object = None) -> None:
        self.replies.append(reply)

    def answer(self, publisher: Publisher, count: int) -> None:
        for reply in self.replies[:count]:
            publisher.receive(Msg(None, reply, "", b'{"seq":1}'))  # type: ignore[arg-type]
        del self.replies[:count]


async def test_outstanding_messages_are_bounded() -> None:
    server = Silent()
    publisher = Publisher("svc", server.publish, outstanding_max=10)
    sending = asyncio.create_task(publisher.publish_all([Publication("kept.a", b"")] * 25))
    for answered in (10, 10, 5):
        await asyncio.sleep(0.01)
        assert len(server.replies) == answered
        assert publisher.outstanding == answered
        server.answer(publisher, answered)
    assert await sending == [1] * 25


async def test_a_message_without_acknowledgement_is_not_stored_for_sure() -> None:
    server = Silent()
    publisher = Publisher("svc", server.publish, timeout_s=0.05)
    with pytest.raises(StateUnavailable):
        await publisher.publish("kept.a", b"")
    assert publisher.outstanding == 0
    # The acknowledgement comes too late.
    server.answer(publisher, 1)


async def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    server = Silent()
    publisher = Publisher("svc", server.publish, outstanding_max=2)
    sending = asyncio.create_task(publisher.publish_all([Publication("kept.a", b"")] * 3))
    await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert publisher.outstanding == 0
