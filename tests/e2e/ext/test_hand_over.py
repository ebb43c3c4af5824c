"""dcx and epts in one process: samples go to the stream directly, and are confirmed when it has them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from kaa_ext import Extension
from kaa_ext.messages import dstp
from kaa_ext.services import dcx, epts
from kaa_ext.services.local_receivers import LocalReceivers
from kaa_ext.testing import Gateway, online, until

STREAM = epts.stream_name("epts")


@dataclass
class Process:
    """A process with both services, and the gateway before them."""

    gateway: Gateway
    dcx: Extension

    async def stored(self) -> int:
        """The number of messages in the stream."""
        return int((await self.dcx.jetstream().stream_info(STREAM)).state.messages)


@pytest.fixture(params=[True, False], ids=["dcx first", "epts first"])
async def process(request: pytest.FixtureRequest) -> AsyncIterator[Process]:
    """Both services, registered and started in either order."""
    extensions = [Extension("dcx"), Extension("epts")]
    settings = dcx.Settings(must_confirm=frozenset({"epts"}))
    local = LocalReceivers(["dcx"])
    dcx.register(extensions[0], settings, local)
    epts.register(extensions[1], local=local)
    async with online(*(extensions if request.param else reversed(extensions))) as gateway:
        yield Process(gateway, extensions[0])


async def test_a_sample_is_stored_once_when_the_device_hears_200(process: Process) -> None:
    events = await process.gateway.listen(dstp.event_subject("dcx"))
    for number in range(1, 21):
        assert (await process.gateway.request("dcx", "/json", b"[%d, 0]" % number)).status_code == 200
        assert await process.stored() == number
    await until(lambda: len(events) == 20, "the events for receivers elsewhere")
    assert dstp.DATA_SAMPLES_EVENT.decode(events[0].data)["dataSamples"] == [b"1", b"0"]
    assert not events[0].reply
    assert await process.stored() == 20


async def test_a_replica_of_the_receiver_elsewhere_stores_nothing_twice(process: Process) -> None:
    elsewhere = Extension("epts")
    epts.register(elsewhere)
    url = process.dcx._connection._urls[0]  # type: ignore[attr-defined]
    async with online(elsewhere, nats_url=url):
        for _ in range(10):
            assert (await process.gateway.request("dcx", "/json", b"[1]")).status_code == 200
        await until(lambda: elsewhere.stats["messages"] >= 10, "the events")
    assert await process.stored() == 10


async def test_a_sample_that_cannot_be_stored_is_503(process: Process) -> None:
    await process.dcx.jetstream().delete_stream(STREAM)
    answer = await process.gateway.request("dcx", "/json", b"[1]")
    assert (answer.status_code, answer.reason_phrase) == (503, "Data samples could not be kept")
    assert (await process.gateway.request("dcx", "/json", b"[")).status_code == 400


async def test_a_receiver_elsewhere_must_confirm_too() -> None:
    extensions = [Extension("dcx"), Extension("epts")]
    local = LocalReceivers(["dcx"])
    settings = dcx.Settings(must_confirm=frozenset({"epts", "other"}), confirmation_timeout=0.3)
    dcx.register(extensions[0], settings, local)
    epts.register(extensions[1], local=local)
    async with online(*extensions) as gateway:
        answer = await gateway.request("dcx", "/json", b"[1]")
        assert (answer.status_code, answer.reason_phrase) == (503, "No receiver of data samples is running")
        await gateway.listen(dstp.event_subject("dcx"))
        answer = await gateway.request("dcx", "/json", b"[1]")
        assert (answer.status_code, answer.reason_phrase) == (504, "Not confirmed in time by other")


def transmitter(*receivers: str) -> Extension:
    """dcx in a process of its own."""
    extension = Extension("dcx")
    dcx.register(extension, dcx.Settings(must_confirm=frozenset(receivers)))
    return extension


async def test_receivers_in_other_processes_store_each_batch_once_and_confirm_many_together() -> None:
    collection = transmitter("epts")
    receivers = [Extension("epts") for _ in range(2)]
    for receiver in receivers:
        epts.register(receiver)
    async with online(collection, *receivers) as gateway:
        answers = await asyncio.gather(
            *(gateway.request("dcx", "/json", b"[%d]" % number) for number in range(500))
        )
        assert {answer.status_code for answer in answers} == {200}
        info = await collection.jetstream().stream_info(STREAM)
        assert info.state.messages == 500
        assert min(receiver.stats["messages"] for receiver in receivers) > 0


async def test_a_request_that_nats_delivers_again_is_stored_once_and_answered_twice() -> None:
    collection, receiver = transmitter("epts"), Extension("epts")
    epts.register(receiver)
    async with online(collection, receiver) as gateway:
        for _ in range(2):
            await gateway.send("dcx", "/json", b"[1]", request_id=1, correlation_id="same")
        await gateway.send("dcx", "/json", b"[1]", request_id=1, correlation_id="same")
        pushes = await gateway.next_pushes(3)  # answers that the double does not wait for
        assert [push.status_code for push in pushes] == [200, 200, 200]
        assert (await collection.jetstream().stream_info(STREAM)).state.messages == 1


async def test_a_batch_is_stored_once_if_a_third_receiver_must_confirm_too() -> None:
    """The receiver in this process, its replica in another, and a receiver that is another service."""
    here = [Extension("dcx"), Extension("epts")]
    local = LocalReceivers(["dcx"])
    dcx.register(here[0], dcx.Settings(must_confirm=frozenset({"epts", "other"})), local)
    epts.register(here[1], local=local)
    elsewhere, other = Extension("epts"), Extension("other")
    epts.register(elsewhere)
    epts.register(other)
    async with online(*here, elsewhere, other) as gateway:
        for number in range(10):
            assert (await gateway.request("dcx", "/json", b"[%d]" % number)).status_code == 200
        await until(lambda: elsewhere.stats["messages"] == 10, "the events")
        for stream in (STREAM, epts.stream_name("other")):
            assert (await here[0].jetstream().stream_info(stream)).state.messages == 10


async def test_a_malformed_event_does_not_spoil_those_beside_it() -> None:
    collection, receiver = transmitter("epts"), Extension("epts")
    epts.register(receiver)
    async with online(collection, receiver) as gateway:
        requests = [
            asyncio.create_task(gateway.request("dcx", "/json", b"[%d]" % number)) for number in range(20)
        ]
        for _ in range(5):
            await gateway.publish(dstp.event_subject("dcx"), b"\x01")
            await asyncio.sleep(0)
        assert {(await request).status_code for request in requests} == {200}
        await until(lambda: receiver.stats["failed"] == 5, "the malformed ones to be counted")
