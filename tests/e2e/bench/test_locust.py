"""Locust, headless, in processes of its own: every protocol's users on a real gateway."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kaa_bench.compare.instruments import Sink
from kaa_bench.packets import APP_VERSION, EXTENSION
from kaa_bench.processes import Gateway, NatsServer

ROOT = Path(__file__).parents[3]
LOCUSTFILE = Path(__file__).with_name("locust_until.py")
END_S = 90
PROTOCOLS = ("mqtt", "coap", "kpudp", "POST")
PORTS = ("mqtt", "http", "coap", "kpudp")


def locust(gateway: Gateway, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ports = [
        option
        for protocol, (_, port) in gateway.addresses.items()
        if protocol in PORTS
        for option in (f"--{protocol}-port", str(port))
    ]
    return subprocess.run(
        [
            sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--json",
            "--users", "8", "--spawn-rate", "8", "--run-time", f"{END_S}s", "--interval", "0.2", *ports,
            "--csv", str(directory / "run"), "--html", str(directory / "run.html"), *arguments,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=2 * END_S, check=False,
    )  # fmt: skip


def requests(ended: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Requests and failures by type and name, of what Locust prints at the end."""
    return {
        (row["method"], row["name"]): (row["num_requests"], row["num_failures"])
        for row in json.loads(ended.stdout)
    }


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_every_protocol_has_users_and_the_reports_are_written(tmp_path: Path, version: str) -> None:
    with NatsServer() as nats, Gateway(nats) as gateway, Sink(nats.address, answers=True) as sink:
        ended = locust(
            gateway,
            tmp_path,
            "--app-version",
            APP_VERSION,
            "--extension",
            EXTENSION,
            "--mqtt-version",
            version,
        )
        received = sink.received()
    assert ended.returncode == 0, ended.stderr
    found = requests(ended)
    samples = 0
    for protocol in PROTOCOLS:
        count, failures = found[protocol, "sample"]
        assert count >= 3, protocol
        assert failures == 0, ended.stderr
        samples += count
    # A user that is stopped in the middle of a sample does not count it.
    assert received >= samples
    assert (tmp_path / "run_stats.csv").exists()
    assert "<html" in (tmp_path / "run.html").read_text()


def test_what_is_refused_is_a_failure_by_kind(tmp_path: Path) -> None:
    with NatsServer() as nats, Gateway(nats) as gateway:
        ended = locust(gateway, tmp_path, "--app-version", APP_VERSION, "--extension", "nobody")
    assert ended.returncode == 1
    found = requests(ended)
    for protocol in PROTOCOLS:
        count, failures = found[protocol, "sample"]
        assert count == failures >= 3, protocol
    report = (tmp_path / "run.html").read_text()
    assert all(kind in report for kind in ("4.04", "reset 404", "statusCode"))


def test_nothing_of_the_bench_imports_it() -> None:
    """It would replace the sockets of everything else."""
    script = (
        "import sys, kaa_bench.cli, kaa_bench.sim.cli; assert not {'locust', 'gevent'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=END_S)
