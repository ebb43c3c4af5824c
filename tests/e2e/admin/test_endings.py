"""Why connections have ended, as operators read it, and what they see of connections that are there."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from kaa_bench.mqtt_packets import Connect, Disconnect, encode
from kaa_gateway.counters import ENDINGS_KEPT
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.gateway import GatewayProcess
from tests.support.held_worker import held_worker, run_on_uvloop
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, POLL_S, NatsServer

TIMEOUT_S = 30.0
KPC = {"limits": {"half-open-connections": 2}, "transports": {"mqtt": {"connect-timeout": 1}}}


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def gateway(shared_nats: NatsServer, request: pytest.FixtureRequest) -> Iterator[GatewayProcess]:
    with GatewayProcess(shared_nats.url, {"kaa": {"kpc": {**KPC, "workers": request.param}}}) as process:
        yield process


async def asked(gateway: GatewayProcess, path: str, **query: str) -> Any:
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{gateway.admin_port}", timeout=30) as client:
        answer = await client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def reasons(gateway: GatewayProcess, client: str) -> list[str]:
    """The reasons why connections of a client have ended, newest first."""
    found = (await asked(gateway, "endings", client=client))["endings"]
    assert all(each["clientId"] == client for each in found)
    assert all(each["peer"].startswith(f"{HOST}:") or not each["peer"] for each in found)
    assert [each["at"] for each in found] == sorted((each["at"] for each in found), reverse=True)
    return [each["reason"] for each in found]


async def until_ended(gateway: GatewayProcess, client: str, expected: list[str]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while await reasons(gateway, client) != expected:
            await asyncio.sleep(POLL_S)


async def test_a_client_that_says_disconnect_and_one_that_is_lost(gateway: GatewayProcess) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, "polite")
    client.connect(HOST, gateway.mqtt_port)
    client.loop_start()
    client.disconnect()
    client.loop_stop()
    await until_ended(gateway, "polite", ["mqtt_disconnect"])
    async with mqtt_client(gateway.mqtt_port, "lost"):
        pass
    found = await reasons(gateway, "lost")
    assert found in (["mqtt_connection_lost"], ["mqtt_disconnect"])


async def test_what_a_client_did_wrong(gateway: GatewayProcess) -> None:
    async with mqtt_client(gateway.mqtt_port, "wrong") as client:
        # A second CONNECT is a violation (MQTT 3.1.1, 3.1.0-2).
        await client.send(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06second")
        await client.until_closed()
    await until_ended(gateway, "wrong", ["mqtt_second_connect"])


async def test_a_connection_without_connect_has_no_name(gateway: GatewayProcess) -> None:
    with socket.create_connection((HOST, gateway.mqtt_port), timeout=10) as silent:
        assert silent.recv(1) == b""
    found = (await asked(gateway, "endings"))["endings"]
    assert any(not each["clientId"] and each["reason"] == "mqtt_connect_timeout" for each in found)


async def test_what_is_shown_of_a_connection(gateway: GatewayProcess) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, "shown")
    client.connect(HOST, gateway.mqtt_port, keepalive=90)
    client.loop_start()
    client.subscribe("kp1/app_v1/dcx/0123456789/#")
    try:
        session: dict[str, Any] = {"topics": []}
        async with asyncio.timeout(TIMEOUT_S):
            while not session["topics"]:
                found = (await asked(gateway, "sessions", client="shown"))["sessions"]
                session = found[0] if found else session
    finally:
        client.disconnect()
        client.loop_stop()
    assert session["peer"].startswith(f"{HOST}:")
    assert (session["keepAlive"], session["tls"], session["topics"]) == (90, None, ["kp1/app_v1/dcx/0123…/#"])
    assert session["since"]


@pytest.mark.parametrize("query", ["client=", "client=a&client=b", "limit=3", "client=" + "x" * 257])
async def test_a_wrong_query_is_explained(gateway: GatewayProcess, query: str) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"http://{HOST}:{gateway.admin_port}/api/v1/endings?{query}")
    assert answer.status_code == 400
    assert "client" in answer.json()["detail"]


async def test_the_history_is_that_of_all_workers(gateway: GatewayProcess) -> None:
    answer = await asked(gateway, "history")
    assert answer["period"] == 15
    assert len(answer["samples"]) <= 240


def test_no_more_than_the_bound_is_remembered(shared_nats: NatsServer, tmp_path: Path) -> None:
    async def come_and_go(port: int, group: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(encode(Connect(str(group))) + encode(Disconnect()))
        await reader.read()
        writer.close()

    async def main() -> None:
        async with held_worker(tmp_path, shared_nats.url) as worker:
            for group in range(12):
                await asyncio.gather(*(come_and_go(worker.ports["mqtt"], group) for _ in range(100)))
            found = [client_id for _, client_id, _, _ in worker.counters.recent_endings()]
            assert len(found) == ENDINGS_KEPT == 1000
            assert found == [str(group) for group in range(11, 1, -1) for _ in range(100)]

    run_on_uvloop(main())
