"""`kaa-gateway run`: how it says that it cannot start, what it warns of, and that SIGTERM loses nothing."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.load import Counter, Device
from tests.support.nats import HOST, NatsServer, free_port

TIMEOUT_S = 30.0


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it where it is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "kaa_gateway", "run", *arguments],
        env={**os.environ, "SERVER_PORT": str(free_port()), **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_without_a_configuration_file(tmp_path: Path) -> None:
    missing = tmp_path / "service-config.yml"
    ended = run({"APP_CONFIG_PATH": str(missing)})
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"{missing}: no such file; APP_CONFIG_PATH names it\n"


def test_options_are_stronger_than_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "service-config.yml"
    ended = run({"APP_CONFIG_PATH": "/nowhere.yml"}, "--config", str(file))
    assert (ended.returncode, ended.stderr) == (1, f"{file}: no such file\n")
    file.write_text("kaa.kpc.workers: 1\n")
    ended = run({"NATS_URLS": "nats://localhost"}, "--config", str(file), "--nats", "http://localhost")
    assert ended.returncode == 1
    assert "NATS_URLS: expected nats://" in ended.stderr


def test_with_a_wrong_configuration(tmp_path: Path) -> None:
    file = tmp_path / "service-config.yml"
    file.write_text("kaa.kpc:\n  workers: 0\nkaa.kpc.worker: 2\n")
    ended = run({"APP_CONFIG_PATH": str(file)})
    assert ended.returncode == 1
    assert sorted(ended.stderr.splitlines()) == [
        f'{file}:2: kaa.kpc.workers: expected an integer from 1 to 256, got "0"',
        f'{file}:3: kaa.kpc.worker: unknown key; did you mean "kaa.kpc.workers"?',
    ]


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("KAA_KPC_NATS_CREDENTIALS_FILE", None, "cannot be read"),
        ("KAA_KPC_NATS_CREDENTIALS_FILE", "nothing", "must hold a user JWT and a seed"),
        ("KAA_KPC_NATS_TLS_CA_FILE", None, "cannot be used for TLS"),
    ],
)
def test_with_a_file_that_is_none(tmp_path: Path, variable: str, text: str | None, said: str) -> None:
    config, file = tmp_path / "service-config.yml", tmp_path / "file"
    config.write_text("")
    if text is not None:
        file.write_text(text)
    ended = run({"APP_CONFIG_PATH": str(config), variable: str(file)})
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"kaa-gateway: {file} ")
    assert said in last
    assert "Traceback" not in ended.stderr


async def test_a_busy_port_is_one_line_that_names_its_key(nats_server: NatsServer) -> None:
    gateway = GatewayProcess(nats_server.url)
    try:
        with socket.create_server((HOST, gateway.mqtt_port)):
            gateway.launch()
            await until(lambda: not gateway.running, "its end")
        assert gateway.log.splitlines()[-1] == (
            f"kaa-gateway: port {gateway.mqtt_port} (kaa.kpc.transports.mqtt.tcp.port): is in use"
        )
        assert "Traceback" not in gateway.log
        assert gateway.stop() == 1
    finally:
        gateway.close()


def entries(log: str) -> list[dict[str, object]]:
    """The lines of the log, each of which must be a JSON object."""
    return [json.loads(line) for line in log.splitlines()]


def test_log_is_json_and_warns_of_open_identity(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url) as gateway:
        gateway.stop()
        lines = entries(gateway.log)
        (warning,) = [line for line in lines if line["level"] == "warning"]
        assert warning["key"] == "kaa.kpc.identity.provider"
        assert "any endpoint" in str(warning["event"])
        assert [line["event"] for line in lines if line["level"] == "info"] == [
            "connected to NATS",
            "serving devices",
            "stopped",
        ]
        assert all("timestamp" in line for line in lines)


def test_static_identity_is_not_warned_of(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url, tokens={"app_v1": {"token": "endpoint"}}) as gateway:
        gateway.stop()
        assert [line for line in entries(gateway.log) if line["level"] != "info"] == []


def test_warnings_of_the_configuration_are_in_the_log(nats_server: NatsServer) -> None:
    changes = {"kaa": {"kpc": {"transports": {"mqtt": {"retain": True}}}}}
    with GatewayProcess(nats_server.url, changes, environment={"KAA_KPC_UNKNOWN_KEYS": "warn"}) as gateway:
        gateway.stop()
        warnings = [str(line.get("warning")) for line in entries(gateway.log) if line["level"] == "warning"]
        assert any("kaa.kpc.transports.mqtt.retain: unknown key" in warning for warning in warnings)


async def test_sigterm_under_load_loses_nothing_that_was_acknowledged(
    gateway: GatewayProcess, nats_server: NatsServer
) -> None:
    devices = [Device(gateway.mqtt_port, f"device-{number}") for number in range(3)]
    async with Counter(nats_server.url) as counter:
        for device in devices:
            device.start()
        await asyncio.gather(*(device.acknowledges(300) for device in devices))
        # The devices do not stop by themselves: it must not wait for that.
        gateway.terminate()
        await asyncio.gather(*(device.ended() for device in devices))
        await until(lambda: not gateway.running, "its end")
        await counter.settle()
        for device in devices:
            assert counter.missing(device) == set()
            assert len(device.acknowledged) >= 300
    assert gateway.stop() == 0
    last = entries(gateway.log)[-1]
    assert last["event"] == "stopped"
    assert "Traceback" not in gateway.log


async def test_rolling_restart_loses_nothing(gateway: GatewayProcess, nats_server: NatsServer) -> None:
    async with Counter(nats_server.url) as counter:
        for round_number in range(2):
            device = Device(gateway.mqtt_port, f"device-{round_number}")
            device.start()
            await device.acknowledges(100)
            gateway.terminate()
            await device.ended()
            await until(lambda: not gateway.running, "its end")
            gateway.restart()
            await counter.settle()
            assert counter.missing(device) == set()


async def test_sigterm_during_the_start(nats_server: NatsServer) -> None:
    """While it waits for a NATS server that is not there."""
    nats_server.stop()
    gateway = GatewayProcess(nats_server.url)
    try:
        gateway.launch()
        await until(lambda: "cannot connect to NATS" in gateway.log, "an attempt")
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log
    finally:
        gateway.close()
