"""Health and metrics of an extension without `kaa-ext run`."""

import asyncio
import json
from typing import NamedTuple

import httpx
import pytest
from kaa_ext import Extension, Request
from kaa_ext.sdk.addresses import host_and_port
from kaa_ext.sdk.errors import CannotListen
from kaa_ext.sdk.management import Management
from kaa_ext.testing import offline, until
from prometheus_client.parser import text_string_to_metric_families


class Health(NamedTuple):
    status: int
    body: str


async def get(management: Management, path: str) -> Health:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{management.port}{path}")
        return Health(answer.status_code, answer.text)


async def metrics(management: Management) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families((await get(management, "/metrics")).body)
        for sample in family.samples
    }


async def test_ready_from_the_start_of_an_extension_to_its_drain() -> None:
    extension = Extension("svc")
    release = asyncio.Event()

    @extension.handler("/slow")
    async def slow(request: Request) -> None:
        await release.wait()

    management = Management("127.0.0.1:0", [extension])
    await management.start()
    try:
        health = await get(management, "/health/ready")
        assert (health.status, json.loads(health.body)["reason"]) == (503, "svc has not started")
        async with offline(extension) as gateway:
            assert (await get(management, "/health/ready")).status == 200
            await gateway.send("svc", "/slow")
            await until(lambda: extension.running == 1, "the request")
            stopping = asyncio.create_task(extension.stop())
            await asyncio.sleep(0)
            health = await get(management, "/health/ready")
            assert (health.status, json.loads(health.body)["reason"]) == (503, "svc drains")
            assert (await get(management, "/health/live")).status == 200
            release.set()
            await stopping
    finally:
        await management.stop()


async def test_metrics_of_requests_by_path_and_of_queues() -> None:
    extension = Extension("svc", concurrency=1)
    release = asyncio.Event()

    @extension.handler("/slow/{name}")
    async def slow(request: Request) -> None:
        await release.wait()

    management = Management("127.0.0.1:0", [extension])
    await management.start()
    try:
        async with offline(extension) as gateway:
            for name in ("a", "b", "c"):
                await gateway.send("svc", f"/slow/{name}", request_id=1)
            await until(lambda: extension.waiting == 2, "two to wait")
            found = await metrics(management)
            assert found["kaa_ext_running_requests", "svc"] == 1
            assert found["kaa_ext_waiting_messages", "svc"] == 2
            assert found["kaa_ext_up", "svc"] == 1
            assert found["kaa_ext_unconfirmed_bytes", "svc"] == 0
            release.set()
            await until(lambda: extension.stats["responses"] == 3, "the answers")
            await gateway.send("svc", "/nowhere", request_id=1)
            await until(lambda: extension.stats["not_found"] == 1, "the last")
            found = await metrics(management)
            assert found["kaa_ext_requests_total", "svc", "/slow/{name}", "200"] == 3
            assert found["kaa_ext_request_seconds_count", "svc", "/slow/{name}"] == 3
            assert found["kaa_ext_events_total", "not_found", "svc"] == 1
            assert found["kaa_ext_events_total", "requests", "svc"] == 3
            assert found["process_cpu_seconds_total",] > 0
    finally:
        await management.stop()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9100", ("0.0.0.0", 9100)),
        (":9100", ("0.0.0.0", 9100)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("host:65535", ("host", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert host_and_port(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:65536", "host:-1", "::1:80", "host:²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|brackets"):
        host_and_port(text)


async def test_an_address_that_is_in_use() -> None:
    first = Management("127.0.0.1:0", [])
    await first.start()
    try:
        second = Management(f"127.0.0.1:{first.port}", [])
        with pytest.raises(CannotListen, match=f"127.0.0.1:{first.port}: Address already in use"):
            await second.start()
        await second.stop()
    finally:
        await first.stop()
