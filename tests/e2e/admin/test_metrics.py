"""The metrics of a worker: a real one, with real devices, so that each family is shown to count what it says."""

import asyncio
import json
import re
from pathlib import Path
from typing import NamedTuple

import httpx
from kaa_bench.mqtt_packets import Publish
from kaa_gateway import __version__
from kaa_gateway.admin.metrics import DURABLE_COUNTERS
from kaa_gateway.counters import bucket_bounds
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.held_worker import HeldWorker, held_worker, run_on_uvloop
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
WATCHERS = [DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "grafana" / "dashboard.json"]
ELSEWHERE = {
    "kaa_gateway_workers",
    "kaa_gateway_worker_starts_total",
    "kaa_gateway_worker_hangs_total",
    "kaa_gateway_durable_up",
    "kaa_gateway_durable_backlog_bytes",
    *(f"kaa_gateway_durable_{name}_total" for name, _, _ in DURABLE_COUNTERS),
    *(
        f"kaa_gateway_identity_{name}"
        for name in ("in_flight", "remembered", "cache_hits_total", "cache_misses_total")
    ),
    *(f"kaa_gateway_identity_{name}_total" for name in ("requests", "unanswered", "malformed_answers")),
    "kaa_gateway_certificate_not_after_seconds",
    "kaa_gateway_config_reloads_total",
}
"""Metrics of the supervisor, the reloader, durable extension instances, identity providers and encrypting listeners."""


class Scrape(NamedTuple):
    """What Prometheus reads: samples by name without prefix and by label values in the order of the labels' names."""

    samples: dict[tuple[str, ...], float]
    names: set[str]


async def scrape(worker: HeldWorker) -> Scrape:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://{HOST}:{worker.ports['admin']}/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return Scrape(
        {
            (
                each.name.removeprefix("kaa_gateway_"),
                *(each.labels[name] for name in sorted(each.labels)),
            ): each.value
            for each in samples
        },
        {each.name for each in samples},
    )


async def ask(worker: HeldWorker, cluster: Cluster, payload: bytes, answer: bytes) -> None:
    """An HTTP request and the answer of its extension."""
    known = len(cluster.requests)
    async with httpx.AsyncClient() as client:
        url = f"http://{HOST}:{worker.ports['http']}/kp1/app_v2/echo/token/path"
        request = asyncio.create_task(client.post(url, content=payload, timeout=30))
        await cluster.answer((await cluster.next_requests(1, after=known))[0], answer)
        assert (await request).content == answer


def test_messages_count_for_their_protocol_direction_and_application_version(
    shared_nats: NatsServer, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            Cluster(shared_nats.url, "dcx", "echo") as cluster,
            held_worker(tmp_path, shared_nats.url) as worker,
            mqtt_client(worker.ports["mqtt"]) as device,
        ):
            await device.send(
                Publish("kp1/app_v1/dcx/token/json", b"12345", 0, 0),
                Publish("kp1/app_v1/dcx/token/json", b"678", 0, 0),
                Publish("kp1/app_v9/dcx/token/json", b"no version of ours", 0, 0),
                Publish("kp1/app_v1/dcx/hold/json", b"waits", 0, 0),
            )
            await cluster.next_requests(2)
            waiting = (await scrape(worker)).samples
            assert waiting["messages_waiting",] == 1
            assert waiting["queue_depth", "identity_requests"] == 1
            worker.provider.release()
            await cluster.next_requests(3)
            await cluster.push("token", b"pushed")
            assert (await device.expect(Publish)).payload == b"pushed"
            await ask(worker, cluster, b"question", b"answer!")
            samples = (await scrape(worker)).samples

        def counted(name: str) -> dict[tuple[str, str], float]:
            """By application version and protocol, without zeros."""
            return {(key[1], key[2]): value for key, value in samples.items() if key[0] == name and value}

        assert counted("messages_in_total") == {("app_v1", "mqtt"): 3, ("", "mqtt"): 1, ("app_v2", "http"): 1}
        assert counted("bytes_in_total") == {("app_v1", "mqtt"): 13, ("", "mqtt"): 18, ("app_v2", "http"): 8}
        assert counted("messages_out_total") == {("app_v1", "mqtt"): 1, ("app_v2", "http"): 1}
        assert counted("bytes_out_total") == {("app_v1", "mqtt"): 6, ("app_v2", "http"): 7}
        assert samples["connections", "mqtt"] == 1
        assert samples["events_total", "refused", "no_route"] == 1
        assert counted_by_extension("messages", samples) == {"dcx": 3, "echo": 1}
        assert counted_by_extension("unserved", samples) == {}
        assert samples["messages_waiting",] == 0

    run_on_uvloop(main())


def test_messages_that_no_replica_takes_count_for_their_extension(
    shared_nats: NatsServer, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            held_worker(tmp_path, shared_nats.url) as worker,
            mqtt_client(worker.ports["mqtt"]) as device,
        ):
            await device.send(Publish("kp1/app_v1/dcx/token/json", b"{}", 1, 1))
            await device.receive()
            samples = (await scrape(worker)).samples
        assert counted_by_extension("messages", samples) == {"dcx": 1}
        assert counted_by_extension("unserved", samples) == {"dcx": 1}

    run_on_uvloop(main())


def counted_by_extension(name: str, samples: dict[tuple[str, ...], float]) -> dict[str, float]:
    """Return a count by extension, without zeros."""
    return {key[1]: value for key, value in samples.items() if key[0] == f"extension_{name}_total" and value}


def test_latencies_and_queues(shared_nats: NatsServer, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Cluster(shared_nats.url, "echo") as cluster,
            held_worker(tmp_path, shared_nats.url) as worker,
        ):
            for _ in range(3):
                await ask(worker, cluster, b"", b"")
            await until(lambda: worker.link.backlog == 0, "the confirmation")
            samples = (await scrape(worker)).samples
            # Each request waits for the answer to the one before it, and so has a block of its own.
            assert samples["nats_confirmation_seconds_count",] == 3
            assert samples["request_seconds_count", "http"] == 3
            assert samples["request_seconds_count", "coap"] == 0
            for name, labels in (("nats_confirmation_seconds", ()), ("request_seconds", ("http",))):
                buckets = [
                    samples[f"{name}_bucket", *sorted((str(bound), *labels), key=[str(bound), *labels].index)]
                    for bound in (*bucket_bounds(), "+Inf")
                ]
                assert buckets == sorted(buckets)
                assert buckets[-1] == 3
                assert samples[f"{name}_sum", *labels] > 0
            assert samples["nats_up",] == 1
            assert samples["nats_blocks_unconfirmed",] == 0
            assert samples["build_info", samples_python(samples), __version__] == 1
            depths = {key[1]: value for key, value in samples.items() if key[0] == "queue_depth"}
            bounds_of = {key[1]: value for key, value in samples.items() if key[0] == "queue_bound"}
            assert depths.keys() == bounds_of.keys()
            assert {"nats_backlog_bytes", "mqtt_connections", "http_requests", "udp_peers"} <= depths.keys()
            assert all(0 <= depths[name] <= bounds_of[name] for name in depths)
            assert samples["process_resident_memory_bytes",] > 0

    run_on_uvloop(main())


def samples_python(samples: dict[tuple[str, ...], float]) -> str:
    """The Python version that the build information names."""
    return next(key[1] for key in samples if key[0] == "build_info")


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(shared_nats: NatsServer, tmp_path: Path) -> None:
    async def names() -> set[str]:
        async with held_worker(tmp_path, shared_nats.url) as worker:
            worker_names = (await scrape(worker)).names
        # The family of events has no sample before the first.
        return worker_names | ELSEWHERE | {"kaa_gateway_events_total"}

    found: set[str] = set()

    async def main() -> None:
        found.update(await names())

    run_on_uvloop(main())
    for path in WATCHERS:
        asked = set(re.findall(r"kaa_gateway_\w+", path.read_text(encoding="utf-8")))
        assert asked
        assert asked <= found, path.name
    json.loads(WATCHERS[1].read_text(encoding="utf-8"))
