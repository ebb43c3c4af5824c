"""`kaa-sim run --agents`: the devices of a scenario on several agents over NATS, with one report."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kaa_bench.compare.instruments import Sink
from kaa_bench.packets import APP_VERSION
from kaa_bench.processes import Gateway, NatsServer
from kaa_bench.sim import agent_messages
from kaa_bench.sim.cli import app

LINE_TIMEOUT_S = 60
SCENARIO = """
name: shared
duration: {seconds}s
fleets:
  - name: meters
    protocol: mqtt
    devices: 8
    interval: 100ms
    application-version: {version}
    payload: {{x: {{kind: counter}}}}
    {more}
target: {{mqtt: {port}}}
"""


@contextmanager
def agent(url: str, group: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A running agent in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "kaa_bench.sim", "agent", "--nats", url, "--group", group, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=LINE_TIMEOUT_S)
        finally:
            process.kill()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with NatsServer() as server, Gateway(server) as gateway, Sink(server.address, answers=True):
        yield gateway


@pytest.fixture
def meeting() -> Iterator[str]:
    """The URL of a NATS server for agents, apart from that of the gateway."""
    with NatsServer() as server:
        host, port = server.address
        yield f"nats://{host}:{port}"


def scenario(path: Path, gateway: Gateway, seconds: float = 1, more: str = "") -> str:
    text = SCENARIO.format(version=APP_VERSION, port=gateway.addresses["mqtt"][1], seconds=seconds, more=more)
    path.write_text(text)
    return str(path)


def run(*arguments: str) -> int:
    status = app(["run", *arguments], exit_on_error=False, result_action="return_value")
    assert isinstance(status, int)
    return status


def test_two_agents_share_the_devices_and_a_third_is_not_needed(
    gateway: Gateway, meeting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scenario(tmp_path / "s.yml", gateway)
    summary, report = tmp_path / "summary.json", tmp_path / "report.html"
    options = ("--agents", "2", "--nats", meeting, "--group", "g")
    with (
        agent(meeting, "g", "--processes", "2"),
        agent(meeting, "g", "--processes", "2"),
        agent(meeting, "other"),
    ):
        assert run(path, *options, "--json", str(summary), "--html", str(report)) == 0, (
            capsys.readouterr().out
        )
        # They are free again.
        assert run(path, *options) == 0
    found = json.loads(summary.read_text())
    assert found["total"]["devices_connected"] == found["devices"] == 8
    assert found["total"]["sent"] == found["total"]["acknowledged"] > 0
    assert found["total"]["latency_us"]["50"] > 0
    assert "4 processes" in report.read_text()


def test_too_few_agents(
    gateway: Gateway, meeting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scenario(tmp_path / "s.yml", gateway)
    options = ("--agents", "2", "--nats", meeting, "--agents-wait", "1")
    with agent(meeting, "default"):
        assert run(path, *options) == 1
        assert "1 of 2 agents of the group default are there" in capsys.readouterr().err


def test_files_are_those_of_the_agent(
    gateway: Gateway, meeting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scenario(tmp_path / "s.yml", gateway, more="tokens: /absent/tokens.csv")
    with agent(meeting, "default"):
        assert run(path, "--agents", "1", "--nats", meeting) == 1
    assert "cannot do its part: /absent/tokens.csv" in capsys.readouterr().err


def test_an_agent_that_dies_ends_the_run(
    gateway: Gateway,
    meeting: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_messages, "SILENCE_MAX_S", 3.0)
    path = scenario(tmp_path / "s.yml", gateway, seconds=600)
    with agent(meeting, "default") as process:
        real = agent_messages.unpacked

        def unpacked(datum: bytes) -> object:
            process.kill()
            return real(datum)

        monkeypatch.setattr(agent_messages, "unpacked", unpacked)
        begin = time.monotonic()
        assert run(path, "--agents", "1", "--nats", meeting) == 1
        assert time.monotonic() - begin < 300
    assert "has not reported for a while" in capsys.readouterr().err


def test_without_nats(tmp_path: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    path = scenario(tmp_path / "s.yml", gateway)
    assert run(path, "--agents", "1", "--nats", "nats://127.0.0.1:1") == 1
    assert "NATS at nats://127.0.0.1:1" in capsys.readouterr().err
