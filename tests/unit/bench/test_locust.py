"""Locust, headless, in processes of its own: every protocol's users on a real gateway."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from bench.instruments import Sink
from bench.packets import APP_VERSION, EXTENSION
from bench.processes import Gateway, NatsServer

ROOT = Path(__file__).parents[3]
END_S = 90


def locust(gateway: Gateway, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ports = [
        option
        for protocol, (_, port) in gateway.addresses.items()
        for option in (f"--{protocol}-port", str(port))
    ]
    return subprocess.run(
        [
            sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "locust" / "locustfile.py"), "--headless",
            "--users", "8", "--spawn-rate", "8", "--run-time", "2s", "--interval", "0.2", *ports,
            "--csv", str(directory / "run"), "--html", str(directory / "run.html"), *arguments,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=END_S, check=False,
    )  # fmt: skip


def requests(directory: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Requests and failures by type and name."""
    with (directory / "run_stats.csv").open() as file:
        return {
            (row["Type"], row["Name"]): (int(row["Request Count"]), int(row["Failure Count"]))
            for row in csv.DictReader(file)
        }


def test_every_protocol_has_users_and_the_reports_are_written(tmp_path: Path) -> None:
    with NatsServer() as nats, Gateway(nats) as gateway, Sink(nats.address, answers=True) as sink:
        ended = locust(gateway, tmp_path, "--app-version", APP_VERSION, "--extension", EXTENSION)
        received = sink.received()
    assert ended.returncode == 0, ended.stderr
    found = requests(tmp_path)
    samples = 0
    for protocol in ("mqtt", "coap", "kpudp", "POST"):
        count, failures = found[protocol, "sample"]
        assert count > 0, protocol
        assert failures == 0, ended.stdout
        samples += count
    # A user that is stopped in the middle of a sample does not count it.
    assert received >= samples
    assert "<html" in (tmp_path / "run.html").read_text()


def test_what_is_refused_is_a_failure_by_kind(tmp_path: Path) -> None:
    with NatsServer() as nats, Gateway(nats) as gateway:
        ended = locust(gateway, tmp_path, "--app-version", APP_VERSION, "--extension", "nobody")
    assert ended.returncode == 1
    assert set(requests(tmp_path)) >= {
        ("mqtt", "sample"),
        ("coap", "sample"),
        ("kpudp", "sample"),
        ("POST", "sample"),
    }
    with (tmp_path / "run_failures.csv").open() as file:
        errors = {row["Method"]: row["Error"] for row in csv.DictReader(file)}
    assert "404" in errors["mqtt"]
    assert "4.04" in errors["coap"]
    assert "reset 404" in errors["kpudp"]
    assert "404" in errors["POST"]


@pytest.mark.parametrize("name", ["locust", "gevent"])
def test_nothing_of_the_bench_imports_it(name: str) -> None:
    """It would replace the sockets of everything else."""
    script = f"import sys, bench.cli, bench.sim.cli; assert {name!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=END_S)
