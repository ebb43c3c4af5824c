"""`kaa-sim load`: its figures, what it remarks, and its exit status."""

import json
import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from kaa_bench.compare.instruments import Discard
from kaa_bench.connecting import LoadSpec
from kaa_bench.sim import load
from kaa_bench.sim.cli import app
from kaa_bench.sim.load import LoadReport, print_report
from rich.console import Console

REPORT = LoadReport(
    protocol="mqtt",
    sent=1000,
    acknowledged=1000,
    planned=1000,
    seconds=1.0,
    rate=1000.0,
    generator_us=2.0,
    generator_limit=500_000.0,
    server_us=5.0,
    late=0,
    held=0,
    retransmitted=0,
    errors={},
    latency_us={"50": 100.0, "99": 900.0},
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WARM_UP_S", 0.05)
    monkeypatch.setattr(load, "CALIBRATION_S", 0.05)


def run(*arguments: str) -> int:
    status = app(arguments, exit_on_error=False, result_action="return_value")
    assert isinstance(status, int)
    return status


def test_a_paced_load_has_percentiles_and_both_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "load.json"
    with Discard("mqtt") as discard:
        status = run(
            "load", "mqtt", "--port", str(discard.address[1]), "--connections", "2", "--rate", "500",
            "--messages", "100", "--server-pid", str(os.getpid()), "--json", str(path),
        )  # fmt: skip
    assert status == 0
    document = json.loads(path.read_text())
    assert (document["sent"], document["acknowledged"], document["planned"]) == (100, 100, 100)
    assert set(document["latency_us"]) == {"50", "90", "99", "99.9", "99.99", "100"}
    assert document["generator_limit"] > 0
    assert document["server_us"] >= 0
    assert "latency 99.9 %" in capsys.readouterr().out


def test_progress_is_shown_while_a_load_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with Discard("mqtt") as discard:
        port = str(discard.address[1])
        assert (
            run("load", "mqtt", "--port", port, "--connections", "2", "--rate", "500", "--seconds", "2.5")
            == 0
        )
    found = re.findall(r"\d+ s  ([\d,]+) sent  ([\d,]+) acknowledged  [\d,]+/s", capsys.readouterr().err)
    assert found
    assert 0 < int(found[0][1].replace(",", "")) <= int(found[0][0].replace(",", "")) < 1250


@pytest.mark.parametrize(
    "option", [["--payload", "a", "--payload-file", "b"], ["--payload-file", "/no/file"]]
)
def test_a_payload_that_cannot_be(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("load", "mqtt", *option) == 1
    assert capsys.readouterr().err.startswith("kaa-sim: ")


def test_tokens_of_different_lengths_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text("token\none\nthree\n")
    assert run("load", "mqtt", "--connections", "2", "--tokens", str(path)) == 1
    assert "have one length" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert run("load", "http", "--port", str(port)) == 1
    assert "cannot connect" in capsys.readouterr().err


def test_a_paced_load_without_answers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("load", "mqtt", "--qos", "0", "--rate", "10") == 1
    assert "--qos 1 or --answered" in capsys.readouterr().err


@pytest.mark.parametrize("spec", [LoadSpec("mqtt", 1, answered=True), LoadSpec("nats", 1)])
def test_the_limit_of_a_load_that_the_discard_server_cannot_answer_is_that_of_mqtt(spec: LoadSpec) -> None:
    assert load.generator_limit(spec) > 0


def test_quiet_figures_have_no_remarks() -> None:
    assert REPORT.remarks == []


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"errors": {"status 503": 2}}, "2 x status 503"),
        ({"rate": 480_000.0}, "generator saturated: it used a whole core"),
        ({"late": 11}, "over a millisecond late with 11 of 1000 messages"),
        ({"held": 3}, "3 of 1000 messages waited for the window"),
        ({"sent": 900}, "100 of 1000 messages could not be sent"),
        ({"retransmitted": 4}, "4 retransmitted"),
    ],
)
def test_what_makes_the_figures_doubtful_is_said(
    changes: dict[str, object], remark: str, tmp_path: Path
) -> None:
    report = replace(REPORT, **changes)  # type: ignore[arg-type]
    assert len(report.remarks) == 1
    with (tmp_path / "out").open("w") as out:
        console = Console(file=out, width=200)
        print_report(report, console)
    assert remark in (tmp_path / "out").read_text()
