"""The management API of whole gateways, fuzzed by schemathesis with what its own description says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer

EXAMPLES = 10
"""Requests that are made up for each operation and phase."""
FUZZ_TIMEOUT_S = 110
PAGES_MAX = 20


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"])
def gateway(request: pytest.FixtureRequest, nats_server: NatsServer) -> Iterator[GatewayProcess]:
    workers = {"kaa": {"kpc": {"workers": request.param}}}
    with GatewayProcess(nats_server.url, workers) as process:
        yield process


def test_the_api_does_what_its_description_says(gateway: GatewayProcess, tmp_path: Path) -> None:
    url = f"http://{HOST}:{gateway.admin_port}"
    ended = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis",
            *("run", f"{url}/api/v1/openapi.json", "--url", url),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
            "--generation-deterministic",
            *("--request-timeout", "30", "--no-color"),
        ],
        cwd=tmp_path,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=FUZZ_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert gateway.ready()


async def test_sessions_of_all_workers_are_found_and_ended(gateway: GatewayProcess) -> None:
    url = f"http://{HOST}:{gateway.admin_port}/api/v1"
    count = 12
    async with httpx.AsyncClient(timeout=30) as client:
        contexts = [mqtt_client(gateway.mqtt_port, f"device-{number}") for number in range(count)]
        devices = [await context.__aenter__() for context in contexts]
        found: dict[str, str] = {}
        position: str | None = None
        for _ in range(PAGES_MAX):
            query = {} if position is None else {"from": position}
            answer = await client.get(f"{url}/sessions", params={**query, "limit": 5})
            page = answer.json()
            found |= {each["clientId"]: each["id"] for each in page["sessions"] if "clientId" in each}
            position = page["next"]
            if position is None:
                break
        assert position is None
        assert found.keys() == {f"device-{number}" for number in range(count)}
        for number, device in enumerate(devices):
            path = f"{url}/sessions/{found[f'device-{number}']}"
            assert (await client.get(path)).json()["clientId"] == f"device-{number}"
            assert (await client.delete(path)).status_code == 204
            assert await device.until_closed() == []
            assert (await client.delete(path)).status_code == 404
        assert (await client.get(f"{url}/sessions/nobody/000000000")).status_code == 404
        for context in contexts:
            await context.__aexit__(None, None, None)


def test_the_log_level_is_set_in_all_workers(gateway: GatewayProcess) -> None:
    url = f"http://{HOST}:{gateway.admin_port}/api/v1/log"
    assert httpx.get(url).json() == {"level": "info"}
    assert httpx.put(url, json={"level": "debug"}, timeout=30).json() == {"level": "debug"}
    assert httpx.get(url).json() == {"level": "debug"}
    assert httpx.put(url, json={"level": "all"}, timeout=30).status_code == 400
