"""What an extension holds at most: requests in progress and waiting, exactly at the bound."""

import asyncio

import pytest
from kaa_ext import Extension, Request
from kaa_ext.sdk import extension as sdk
from kaa_ext.testing import offline, until
from kaa_gateway.wire.esp import encode_client_data


def slow(release: asyncio.Event, concurrency: int) -> Extension:
    service = Extension("svc", concurrency=concurrency)

    @service.handler("/json")
    async def wait(request: Request) -> bytes:
        await release.wait()
        return request.payload

    return service


@pytest.mark.parametrize("sent", [4, 5, 9, 10, 11])
async def test_requests_run_then_wait_then_are_dropped(monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    monkeypatch.setattr(sdk, "PENDING_MESSAGES", 5)
    release = asyncio.Event()
    service = slow(release, 4)
    async with offline(service) as gateway:
        for number in range(sent):
            await gateway.send("svc", "/json", b"%d" % number, request_id=number)
        await until(lambda: service.running + service.waiting + service.stats["overrun"] == sent, "all")
        assert service.running == min(sent, 4)
        assert service.waiting == min(max(sent - 4, 0), 5)
        assert service.stats["overrun"] == max(sent - 9, 0)
        release.set()
        await until(lambda: service.stats["responses"] == min(sent, 9), "the answers")
        await until(lambda: len(gateway.pushes) == min(sent, 9), "the answers at the gateway")
        assert [push.payload for push in gateway.pushes] == [b"%d" % number for number in range(min(sent, 9))]
        assert (await gateway.request("svc", "/json", b"again")).payload == b"again"


async def test_waiting_requests_have_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(encode_client_data("c" * 36, 1_000, 0, "app_v1", "endpoint", "/json", 1, bytes(100)))
    monkeypatch.setattr(sdk, "PENDING_BYTES", 3 * size + 64)  # the timestamp has more digits than that one
    release = asyncio.Event()
    service = slow(release, 1)
    async with offline(service) as gateway:
        for _ in range(6):
            await gateway.send("svc", "/json", bytes(100), request_id=1)
        await until(lambda: service.stats["overrun"] == 2, "two to be dropped")
        assert (service.running, service.waiting) == (1, 3)
        release.set()
        await until(lambda: service.stats["responses"] == 4, "the answers")
        # The room is free again.
        release.clear()
        for _ in range(4):
            await gateway.send("svc", "/json", bytes(100), request_id=1)
        await until(lambda: service.waiting == 3, "three to wait")
        assert service.stats["overrun"] == 2
        release.set()


async def test_no_request_begins_while_nats_does_not_take_answers() -> None:
    release = asyncio.Event()
    release.set()
    service = slow(release, 4)
    async with offline(service) as gateway:
        service._dispatcher.hold(True)
        for _ in range(3):
            await gateway.send("svc", "/json", request_id=1)
        await until(lambda: service.waiting == 3, "all to wait")
        assert service.running == 0
        service._dispatcher.hold(False)
        await until(lambda: service.stats["responses"] == 3, "the answers")
