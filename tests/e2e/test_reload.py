"""A new configuration for a running gateway: by its file, by SIGHUP, by 17/SCMP; one worker or two."""

import io
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import fastavro
import httpx
import pytest
from kaa_bench.mqtt_packets import Publish
from kaa_gateway.lifecycle import announcements

from tests.support import schemas
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import INSTANCE, GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import HOST, NatsServer

VERSIONS = {
    "kaa": {"applications": {"app": {"versions": {"app_v2": {"allowed-extension-instances": ["dcx"]}}}}}
}
ADDED: dict[str, Any] = {
    "kaa": {
        "applications": {"app": {"versions": {"app_v3": {"allowed-extension-instances": ["new"]}}}},
        "extension-instances": {"new": {}},
    }
}


@pytest.fixture
async def cluster(nats_server: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(nats_server.url, "dcx", "new") as cluster:
        yield cluster


def write(gateway: GatewayProcess, document: dict[str, Any]) -> None:
    """Put another file in the place of the configuration."""
    new = gateway.config_path.with_suffix(".new")
    new.write_text(json.dumps(document), encoding="utf-8")
    new.rename(gateway.config_path)


async def reloaded(gateway: GatewayProcess, result: str, count: int = 1) -> None:
    await until(
        lambda: gateway.count("config_reloads", result) == count, f"{count} {result}: {gateway.log[-2000:]}"
    )


async def status(gateway: GatewayProcess, path: str) -> int:
    """Of a request over HTTP."""
    async with httpx.AsyncClient(timeout=60) as client:
        return (await client.post(f"http://{HOST}:{gateway.http_port}/{path}", content=b"")).status_code


async def speaks(peer: MqttPeer, cluster: Cluster, topic: str) -> None:
    """A message that comes through."""
    count = len(cluster.requests)
    await peer.send(Publish(topic, b""))
    await cluster.next_requests(1, after=count)


async def test_what_is_allowed_stays_and_what_is_not_ends(nats_server: NatsServer, cluster: Cluster) -> None:
    with GatewayProcess(nats_server.url, VERSIONS) as gateway:
        async with mqtt_client(gateway.mqtt_port) as stays, mqtt_client(gateway.mqtt_port) as ends:
            await speaks(stays, cluster, "kp1/app_v1/dcx/one/json")
            await speaks(ends, cluster, "kp1/app_v2/dcx/two/json")
            assert await status(gateway, "kp1/app_v3/new/three/json") == 404

            document = gateway.document_with(ADDED)
            write(gateway, document)
            await reloaded(gateway, "applied")
            for peer, topic in ((stays, "kp1/app_v1/dcx/one/json"), (ends, "kp1/app_v2/dcx/two/json")):
                await speaks(peer, cluster, topic)
            await speaks(stays, cluster, "kp1/app_v3/new/three/json")

            del document["kaa"]["applications"]["app"]["versions"]["app_v2"]
            write(gateway, document)
            await reloaded(gateway, "applied", 2)
            await ends.until_closed()
            event = await cluster.connectivity("disconnected", "two")
            assert event["endpoints"] == {"two": "app_v2"}
            assert await status(gateway, "kp1/app_v2/dcx/two/json") == 404
            await speaks(stays, cluster, "kp1/app_v1/dcx/one/json")
            assert await stays.until_pingresp() == []
        assert gateway.count("connections_opened", "mqtt") == 2
        assert "Traceback" not in gateway.log


async def test_a_wrong_one_is_refused_and_the_old_stays(nats_server: NatsServer, cluster: Cluster) -> None:
    with GatewayProcess(nats_server.url) as gateway:
        async with mqtt_client(gateway.mqtt_port) as peer:
            await speaks(peer, cluster, "kp1/app_v1/dcx/one/json")
            good = gateway.document_with(ADDED)
            write(gateway, good | {"server": {"port": "none"}, "sevice": {}})
            await reloaded(gateway, "refused")
            problems = [
                json.loads(line)["problem"] for line in gateway.log.splitlines() if '"problem"' in line
            ]
            assert len(problems) == 2
            assert any("server.port: expected an integer" in problem for problem in problems)
            assert any('sevice: unknown key; did you mean "service"?' in problem for problem in problems)
            await speaks(peer, cluster, "kp1/app_v1/dcx/one/json")
            assert await status(gateway, "kp1/app_v3/new/three/json") == 404
            # Mended, with a port that cannot change: the rest is applied.
            write(gateway, good | {"server": {"port": gateway.admin_port + 1}})
            await reloaded(gateway, "applied")
            await speaks(peer, cluster, "kp1/app_v3/new/three/json")
        (warning,) = [json.loads(line) for line in gateway.log.splitlines() if "a restart is needed" in line]
        assert warning["keys"] == ["server.port"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_log_level_changes_at_once(nats_server: NatsServer, workers: int) -> None:
    with GatewayProcess(nats_server.url, {"kaa": {"kpc": {"workers": workers}}}) as gateway:

        async def level() -> str:
            async with httpx.AsyncClient(timeout=60) as client:
                answer = await client.get(f"http://{HOST}:{gateway.admin_port}/api/v1/log")
                return str(answer.json()["level"])

        async with httpx.AsyncClient(timeout=60) as client:
            await client.put(f"http://{HOST}:{gateway.admin_port}/api/v1/log", json={"level": "warning"})
        write(gateway, gateway.document_with(ADDED))
        await reloaded(gateway, "applied")
        assert await level() == "warning"
        write(gateway, gateway.document_with({"kaa": {"kpc": {"log": {"level": "error"}}}}))
        await reloaded(gateway, "applied", 2)
        assert await level() == "error"
        gateway.stop()
        assert '"stopped"' not in gateway.log


def announcement(name: str, **fields: Any) -> bytes:
    """A message of 17/SCMP, by the RFC's schema where that is at hand."""
    ours = {"0017-broadcast_configuration_update": announcements.BROADCAST}
    schema = schemas.rfc_schema(name, ours.get(name, announcements.TARGETED))
    out = io.BytesIO()
    record = {"correlationId": "id", "timestamp": 0, "appName": None, "appVerName": None}
    fastavro.schemaless_writer(out, schema, record | fields)
    return out.getvalue()


async def test_the_cluster_announces_it(nats_server: NatsServer, cluster: Cluster) -> None:
    broadcast = announcement(
        "0017-broadcast_configuration_update", originatorReplicaId="replica", tenantID=None, appName="app"
    )
    targeted = announcement("0017-service_specific_configuration_update", tenantID="tenant")
    with GatewayProcess(nats_server.url) as gateway:
        messages = [
            ("kaa.v1.events.tekton.service.configuration.upsert", broadcast),
            ("kaa.v1.events.other.service.configuration.delete", broadcast),
            (f"kaa.v1.service.{INSTANCE}.scmp.configuration.upsert", targeted),
            (f"kaa.v1.service.{INSTANCE}.scmp.configuration.delete", targeted),
        ]
        for count, (subject, datum) in enumerate(messages, 1):
            await cluster.nats.publish(subject, datum)
            await reloaded(gateway, "unchanged", count)
        for datum in (b"", b"\xff" * 30, broadcast[:-1]):
            await cluster.nats.publish(messages[0][0], datum)
        await until(
            lambda: gateway.count("events", "dropped", "malformed_announcement") == 3, "what is malformed"
        )
        assert gateway.count("config_reloads", "unchanged") == 4
        assert "17/SCMP" in gateway.log


async def test_all_workers_apply_it(nats_server: NatsServer, cluster: Cluster) -> None:
    """At SIGHUP, and those that are started later as well."""
    changes = {"kaa": {"kpc": {"workers": 2}}}
    with GatewayProcess(nats_server.url, changes) as gateway:
        async with AsyncExitStack() as stack:
            peers: list[MqttPeer] = []
            while not peers or not all(
                metrics.get(("connections_opened", "mqtt"), 0) >= 1
                for worker, metrics in gateway.metrics_by_worker().items()
                if worker
            ):
                peers.append(await stack.enter_async_context(mqtt_client(gateway.mqtt_port)))
            gateway.config_path.write_text(json.dumps(gateway.document_with(ADDED)), encoding="utf-8")
            os.kill(gateway.pid, signal.SIGHUP)
            await until(lambda: gateway.count("config_reloads", "applied") >= 1, "it is applied")
            await until(lambda: gateway.log.count('"configuration applied"') >= 2, "both have it")
            for number, peer in enumerate(peers):
                await speaks(peer, cluster, f"kp1/app_v3/new/{number}/json")
            await cluster.nats.publish(
                f"kaa.v1.service.{INSTANCE}.scmp.configuration.upsert",
                announcement("0017-service_specific_configuration_update", tenantID="tenant"),
            )
            await until(lambda: gateway.count("config_reloads", "unchanged") >= 1, "the announcement")
        assert "Traceback" not in gateway.log
