"""Dockerfile, compose file, and what Prometheus is given, each held against its own tool where there is one."""

import configparser
import subprocess
import sys
from pathlib import Path

import yaml
from kaa_gateway.app import dev
from kaa_gateway.config import load

DEPLOY = Path(__file__).resolve().parents[1]
ROOT = DEPLOY.parent


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; it must end with 0."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_dockerfile_is_clean() -> None:
    assert run(Path(sys.executable).parent / "hadolint", "Dockerfile") == ""


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert set(copied) == allowed
    for source in copied:
        assert (ROOT / source).exists(), source


def test_alert_rules_hold_their_tests() -> None:
    run("promtool", "check", "rules", "alerts.yml", cwd=DEPLOY / "prometheus")
    run("promtool", "check", "config", "--syntax-only", "prometheus.yml", cwd=DEPLOY / "prometheus")
    run("promtool", "test", "rules", "alerts_test.yml", cwd=DEPLOY / "prometheus")


def test_each_alert_is_explained() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for group in groups:
        for rule in group["rules"]:
            assert f"| `{rule['alert']}` |" in text


def test_the_compose_file_names_what_is_there(tmp_path: Path) -> None:
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    services = document["services"]
    assert services.keys() == {"nats", "gateway", "extensions", "rest", "prometheus", "grafana"}
    for name, service in services.items():
        assert ":" in service["image"] or service["image"] == "kaa-gateway", name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in document["volumes"] or (DEPLOY / source).exists(), f"{name}: {source}"
    assert services["gateway"]["read_only"] is True
    file = DEPLOY / document["configs"]["service-config"]["file"]
    config = load(file, services["gateway"]["environment"])
    published = {int(port.split("/")[0].split(":")[-1]) for port in services["gateway"]["ports"]}
    transports = config.transports
    assert published == {
        config.server.port,
        transports.mqtt.tcp.port,
        transports.http.port,
        transports.coap.port,
        transports.udp.port,
    }
    (target,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))[
        "scrape_configs"
    ][0]["static_configs"][0]["targets"]
    assert target == f"gateway:{config.server.port}"


def test_compose_runs_what_make_run_runs(tmp_path: Path) -> None:
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    command = document["services"]["extensions"]["entrypoint"]
    services = command[2 : command.index("--settings")]
    assert command[:2] == ["kaa-ext", "run"]
    assert set(services) == set(dev.EXTENSIONS)
    for config in document["configs"].values():
        assert "content" in config or (DEPLOY / config["file"]).exists()
    assert len(document["configs"]["management-token"]["content"]) >= 16  # or the gateway does not start


def test_systemd_leaves_time_to_drain_and_runs_a_command_that_exists() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd/kaa-gateway.service", encoding="utf-8")
    service = unit["Service"]
    assert service["ExecStart"] == "/opt/kaa-gateway/bin/kaa-gateway run"
    assert float(service["TimeoutStopSec"]) > 30  # the default of service.graceful-shutdown
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
