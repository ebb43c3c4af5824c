"""`kaa-bench capacity` with few connections."""

import json
from pathlib import Path

import pytest
from kaa_bench.capacity import run
from kaa_bench.cli import app


@pytest.mark.parametrize("tls", [[], ["--tls"]])
def test_idle_connections_are_held_and_drained(
    tls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "NATS_AWAY_S", 0.5)
    path = tmp_path / "capacity.json"
    arguments = [
        "capacity",
        "--connections",
        "41",
        "--workers",
        "1",
        "--idle",
        "0.5",
        "--json",
        str(path),
        *tls,
    ]
    assert app(arguments, exit_on_error=False, result_action="return_value") == 0
    found = json.loads(path.read_text())
    assert found["open_after_idle"] == found["open_after_nats"] == 41
    assert found["open_after_drain"] == 0
    assert found["gateway_memory"] > 0
    assert found["connect_cpu"] > 0
