"""The management API of a worker: a real one with real devices, asked over its port as operators do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from kaa_bench.mqtt_packets import Publish
from kaa_gateway import logs
from kaa_gateway.errors import ConfigError

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.held_worker import HeldWorker, held_worker, run_on_uvloop
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer

TOKEN = "a-token-of-24-characters"
Scenario = Callable[[httpx.AsyncClient, HeldWorker], Awaitable[None]]
Run = Callable[..., None]


@asynccontextmanager
async def client_of(worker: HeldWorker, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://{HOST}:{worker.ports['admin']}"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def run(shared_nats: NatsServer, tmp_path: Path) -> Run:
    """Runs a scenario with a worker and a client of its API."""

    def start(scenario: Scenario, changes: dict[str, Any] | None = None) -> None:
        async def main() -> None:
            async with (
                held_worker(tmp_path, shared_nats.url, changes) as worker,
                client_of(worker) as client,
            ):
                await asyncio.wait_for(scenario(client, worker), 90)

        run_on_uvloop(main())

    return start


async def sessions(api: httpx.AsyncClient, /, **query: str) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await api.get("/api/v1/sessions", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["sessions"]
        if page["next"] is None:
            return found
        query["from"] = page["next"]


def test_who_is_connected_and_for_which_endpoints(run: Run, shared_nats: NatsServer) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        async with (
            Cluster(shared_nats.url, "dcx") as cluster,
            mqtt_client(worker.ports["mqtt"], "one") as one,
            mqtt_client(worker.ports["mqtt"], "two") as two,
        ):
            await one.send(Publish("kp1/app_v1/dcx/alpha/json", b"1234", 0, 0))
            await one.send(Publish("kp1/app_v1/dcx/beta/json", b"5678", 0, 0))
            await two.send(Publish("kp1/app_v1/dcx/beta/json", b"5678", 0, 0))
            await cluster.next_requests(3)
            (found,) = await sessions(client, client="one")
            assert found["protocol"] == "mqtt"
            assert found["online"] is True
            assert found["clean"] is True
            assert found["endpoints"] == [
                {
                    "endpointId": name,
                    "appVersion": "app_v1",
                    "messagesIn": messages,
                    "bytesIn": 4 * messages,
                    "messagesOut": 0,
                    "bytesOut": 0,
                }
                for name, messages in (("alpha", 1), ("beta", 2))
            ]
            assert (await client.get(f"/api/v1/sessions/{found['id']}")).json() == found
            assert {each["clientId"] for each in await sessions(client, endpoint="beta")} == {"one", "two"}
            assert await sessions(client, endpoint="gamma") == []
            assert await sessions(client, protocol="http") == []
            pages = await sessions(client, limit="1")
            assert {each["clientId"] for each in pages} == {"one", "two"}

    run(scenario)


def test_a_session_is_ended(run: Run) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        async with mqtt_client(worker.ports["mqtt"], "unwanted") as device:
            (found,) = await sessions(client)
            path = f"/api/v1/sessions/{found['id']}"
            assert (await client.delete(path)).status_code == 204
            assert await device.until_closed() == []
            assert worker.counters.by_reason()["closed", "disconnected_by_operator"] == 1
            await until(lambda: worker.sessions.count == 0, "the end of the session")
            assert (await client.delete(path)).status_code == 404
            assert (await client.get(path)).status_code == 404

    run(scenario)


def test_an_http_connection_is_ended_and_a_coap_address_forgotten(run: Run, shared_nats: NatsServer) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        async with Cluster(shared_nats.url, "dcx") as cluster:
            reader, writer = await asyncio.open_connection(HOST, worker.ports["http"])
            await until(lambda: worker.sessions.count == 1, "the session of HTTP")
            (found,) = await sessions(client, protocol="http")
            assert (await client.delete(f"/api/v1/sessions/{found['id']}")).status_code == 204
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            # CON POST kp1/app_v1/dcx/t, without payload
            path = b"".join(bytes([0xB0 + len(first), *first]) for first in [b"kp1"]) + b"".join(
                bytes([len(segment), *segment]) for segment in (b"app_v1", b"dcx", b"t")
            )
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=(HOST, worker.ports["coap"])
            )
            transport.sendto(b"\x40\x02\x00\x01" + path)
            await cluster.next_requests(1)
            (peer,) = await sessions(client, protocol="coap")
            assert (await client.delete(f"/api/v1/sessions/{peer['id']}")).status_code == 204
            assert await sessions(client, protocol="coap") == []
            transport.close()

    run(scenario)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "from=1",
        "protocol=am.qp",
        "client=",
        "x=1",
        "limit=1&limit=2",
    ],
)
def test_a_wrong_query_is_explained(run: Run, query: str) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        answer = await client.get(f"/api/v1/sessions?{query}")
        assert answer.status_code == 400
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert (query.split("=")[0]) in answer.json()["detail"]

    run(scenario)


def test_the_configuration_is_shown_without_secrets(
    run: Run, shared_nats: NatsServer, tmp_path: Path
) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        answer = await client.get("/api/v1/config")
        document = answer.json()
        assert document["service"]["instance"]["name"] == "kpc"
        assert document["kaa"]["kpc"]["transports"]["mqtt"]["tcp"]["port"] == worker.ports["mqtt"]
        assert "app_v1" in document["kaa"]["applications"]["app"]["versions"]
        assert document["kaa"]["kpc"]["nats"]["urls"] == [shared_nats.url.replace("//", "//***@")]
        assert "pa55word" not in answer.text

    address = shared_nats.url.removeprefix("nats://")

    async def main() -> None:
        # A server without authentication takes whoever names himself.
        async with (
            held_worker(tmp_path, f"nats://user:pa55word@{address}") as worker,
            client_of(worker) as client,
        ):
            await scenario(client, worker)

    run_on_uvloop(main())


def test_the_log_level_is_set_at_run_time(run: Run) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        before = (await client.get("/api/v1/log")).json()["level"]
        try:
            assert (await client.put("/api/v1/log", json={"level": "debug"})).json() == {"level": "debug"}
            assert (await client.get("/api/v1/log")).json() == {"level": "debug"}
            bodies: list[Any] = [{"level": "loud"}, {}, {"level": "info", "more": 1}, [], "info"]
            for body in bodies:
                assert (await client.put("/api/v1/log", json=body)).status_code == 400
            assert (await client.put("/api/v1/log", content=b'{"\xff')).status_code == 400
            assert (await client.put("/api/v1/log", content=b"{" + b" " * 5000)).status_code == 413
            assert logs.level() == "debug"
        finally:
            logs.set_level(before)

    run(scenario)


def test_there_is_no_certificate_without_tls(run: Run) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        assert (await client.get("/api/v1/certificate")).status_code == 404

    run(scenario)


def test_health_and_metrics_are_open_and_the_api_wants_the_token(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        for path in ("/", "/health/live", "/health/ready", "/metrics", "/api/v1/openapi.json"):
            assert (await client.get(path)).status_code == 200
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = await client.get("/api/v1/sessions", headers=wrong)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        right = {
            "Authorization": f"Bearer {TOKEN}",
            "X-Forwarded-For": "192.0.2.1",
            "Host": "gateway.example",
        }
        answer = await client.get("/api/v1/config", headers=right)
        assert answer.status_code == 200
        assert TOKEN not in answer.text

    run(scenario, {"server": {"token-file": str(file)}})


@pytest.mark.parametrize(
    "headers",
    [{"Host": "rebound.example"}, {"X-Forwarded-For": "192.0.2.1"}, {"Forwarded": "for=192.0.2.1"}],
    ids=str,
)
def test_without_token_only_this_machine_is_answered(run: Run, headers: dict[str, str]) -> None:
    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        assert (await client.get("/api/v1/config")).status_code == 200
        assert (await client.get("/api/v1/config", headers=headers)).status_code == 403
        assert (await client.get("/health/live", headers=headers)).status_code == 200

    run(scenario)


@pytest.mark.parametrize(
    ("text", "said"), [("short", "16 characters"), (None, "No such file"), ("ü" * 20, "ASCII")]
)
def test_a_token_file_that_is_of_no_use_keeps_the_gateway_from_starting(
    run: Run, tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text, encoding="utf-8")

    async def scenario(client: httpx.AsyncClient, worker: HeldWorker) -> None:
        raise AssertionError("it has started")

    with pytest.raises(ConfigError) as failure:
        run(scenario, {"server": {"token-file": str(file)}})
    assert failure.value.detail.startswith("server.token-file")
    assert said in failure.value.detail
