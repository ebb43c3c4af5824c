"""The management API of several workers: real servers on Unix sockets, as the workers have them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from kaa_gateway.admin import fleet
from kaa_gateway.admin.exposition import merge_metrics
from kaa_gateway.admin.fleet import Fleet
from kaa_gateway.admin.fleet_server import FleetServer
from kaa_gateway.admin.server import AdminServer
from kaa_gateway.supervision.processes import WorkerProcesses
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from tests.support.nats import HOST, free_port

ONE = """\
# HELP kaa_gateway_events_total What was refused.
# TYPE kaa_gateway_events_total counter
kaa_gateway_events_total{event="refused",reason="no_route"} 3.0
# HELP kaa_gateway_nats_up Whether NATS is connected.
# TYPE kaa_gateway_nats_up gauge
kaa_gateway_nats_up 1.0
"""
OTHER = ONE.replace("3.0", "4.0").replace("no_route", "{a b}")


def test_metrics_of_workers_are_one_exposition_with_a_label() -> None:
    merged = merge_metrics({0: ONE, 1: OTHER})
    assert merged.splitlines() == [
        "# HELP kaa_gateway_events_total What was refused.",
        "# TYPE kaa_gateway_events_total counter",
        'kaa_gateway_events_total{worker="0",event="refused",reason="no_route"} 3.0',
        'kaa_gateway_events_total{worker="1",event="refused",reason="{a b}"} 4.0',
        "# HELP kaa_gateway_nats_up Whether NATS is connected.",
        "# TYPE kaa_gateway_nats_up gauge",
        'kaa_gateway_nats_up{worker="0"} 1.0',
        'kaa_gateway_nats_up{worker="1"} 1.0',
    ]
    samples = [each for family in text_string_to_metric_families(merged) for each in family.samples]
    assert [(each.labels["worker"], each.value) for each in samples] == [
        ("0", 3),
        ("1", 4),
        ("0", 1),
        ("1", 1),
    ]


class Gateway:
    """A fleet server over two workers, each of which may be there or not, and ready or not."""

    def __init__(self, directory: Path) -> None:
        self.fleet = Fleet({index: directory / f"{index}.sock" for index in range(2)})
        self.port = free_port()
        self.ready = [False, False]
        self.workers: dict[int, AdminServer] = {}
        self.processes = WorkerProcesses(2, print, lambda *arguments: arguments, name="worker", log=None)
        self.server = FleetServer(self.fleet, self.processes)

    async def start_worker(self, index: int) -> None:
        registry = CollectorRegistry()
        Counter("seen", "What it has seen.", registry=registry).inc(index + 1)
        self.workers[index] = AdminServer(registry, lambda: [] if self.ready[index] else ["not yet"])
        await self.workers[index].start_on_socket(self.fleet.sockets[index])

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://{HOST}:{self.port}{path}")

    async def readiness(self) -> tuple[int, list[str]]:
        answer = await self.get("/health/ready")
        document = answer.json()
        assert document["status"] == ("UP" if answer.status_code == 200 else "DOWN")
        return answer.status_code, [worker["status"] for _, worker in sorted(document["workers"].items())]


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(directory)
    await gateway.server.start(HOST, gateway.port)
    try:
        yield gateway
    finally:
        await gateway.server.stop()
        for worker in gateway.workers.values():
            await worker.stop()


async def test_ready_when_each_worker_has_been_and_then_while_one_is(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert await gateway.readiness() == (503, ["DOWN", "DOWN"])
        await gateway.start_worker(0)
        gateway.ready[0] = True
        assert await gateway.readiness() == (503, ["UP", "DOWN"])
        await gateway.start_worker(1)
        gateway.ready[1] = True
        assert await gateway.readiness() == (200, ["UP", "UP"])
        await gateway.workers.pop(0).stop()
        assert await gateway.readiness() == (200, ["DOWN", "UP"])
        gateway.ready[1] = False
        assert await gateway.readiness() == (503, ["DOWN", "DOWN"])
        gateway.ready[1] = gateway.processes.stopping = True
        assert await gateway.readiness() == (503, ["DOWN", "UP"])
        assert (await gateway.get("/health/live")).status_code == 200


async def test_a_socket_that_a_dead_worker_has_left_is_taken_over(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        await gateway.start_worker(0)
        forgotten = gateway.workers.pop(0)
        await gateway.start_worker(0)
        gateway.ready[0] = True
        assert await gateway.readiness() == (503, ["UP", "DOWN"])
        await forgotten.stop()


async def test_metrics_are_those_of_the_workers_that_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        gateway.processes.starts[0] += 3
        for index in range(2):
            await gateway.start_worker(index)
        text = (await gateway.get("/metrics")).text
        assert 'seen_total{worker="0"} 1.0' in text
        assert 'seen_total{worker="1"} 2.0' in text
        assert text.count("# TYPE seen_total counter") == 1
        assert 'kaa_gateway_worker_starts_total{worker="0"} 3.0' in text
        assert "kaa_gateway_workers 2.0" in text
        await gateway.workers.pop(0).stop()
        text = (await gateway.get("/metrics")).text
        assert 'seen_total{worker="0"}' not in text
        assert 'seen_total{worker="1"} 2.0' in text


async def test_a_worker_that_is_silent_counts_as_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "ANSWER_TIMEOUT", 0.05)
    async with running(tmp_path) as gateway:
        server = await asyncio.start_unix_server(lambda reader, writer: None, str(gateway.fleet.sockets[0]))
        assert (await gateway.readiness())[1] == ["DOWN", "DOWN"]
        server.close()
