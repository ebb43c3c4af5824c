"""What is derived from a run, and how it is shown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from bench.cli import RowName, app
from bench.measure import Run
from bench.report import RowResult, print_table, progress_line, spread, write_json
from bench.rows import ROWS

RUN = Run(
    messages=1000,
    acknowledged=1000,
    seconds=0.5,
    server_cpu=0.002,
    generator_cpu=0.001,
    nats_cpu=0.003,
    received=1000,
)


def test_cost_is_cpu_by_messages() -> None:
    assert RUN.rate == 2000
    assert (RUN.server_us, RUN.generator_us, RUN.nats_us) == pytest.approx((2.0, 1.0, 3.0))
    assert RUN.remarks == []
    assert RUN.lost_of_acknowledged == 0


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"received": 990}, "LOST 10 acknowledged messages"),
        ({"received": 990, "acknowledged": 0}, "10 of 1000 did not reach the extension"),
        ({"received": 1003}, "3 messages reached the extension twice"),
        ({"retransmitted": 5}, "5 retransmitted"),
        ({"generator_cpu": 0.49}, "generator saturated"),
        ({"nats_cpu": 0.6}, "nats-server used a whole core"),
        ({"errors": {"status 503": 4}}, "4 x status 503"),
    ],
)
def test_what_makes_the_figures_doubtful_is_said(changes: dict[str, object], remark: str) -> None:
    run = replace(RUN, **changes)  # type: ignore[arg-type]
    assert run.remarks == [remark]
    assert progress_line("round 1/1", ROWS["qos1"], "gateway", run).endswith(f"; {remark}")


def test_more_arrivals_than_acknowledgements_are_no_loss() -> None:
    assert replace(RUN, received=1001).lost_of_acknowledged == 0
    assert replace(RUN, received=None).lost_of_acknowledged == 0


def test_the_table_has_medians_and_extremes_and_the_remarks(tmp_path: Path) -> None:
    runs = [replace(RUN, server_cpu=cpu) for cpu in (0.001, 0.004, 0.002)]
    results = [
        RowResult(
            ROWS["coap"],
            runs,
            {
                "libcoap": [replace(RUN, server_cpu=0.008, nats_cpu=None, received=None)],
                "aiocoap": [replace(RUN, server_cpu=0.4, nats_cpu=None, received=None, retransmitted=7)],
            },
        ),
        RowResult(ROWS["http"], [replace(RUN, errors={"closed by peer": 1})]),
    ]
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    print_table(results, console)
    text = console.export_text()
    assert "2.00" in text
    assert "1.00-4.00" in text
    assert max(map(len, text.splitlines())) <= 80
    (libcoap,) = (line.split() for line in text.splitlines() if "libcoap" in line)
    assert libcoap[-6:] == ["1,000", "2,000", "8.00", "4.0x", "1.00", "-"]
    assert "200.0x" in text
    assert "CoAP CON POST, 64 devices, window 1, aiocoap: 7 retransmitted" in text
    assert "HTTP POST, 64 keep-alive connections, gateway: 1 x closed by peer" in text


def test_no_values_are_a_dash() -> None:
    assert spread([]) == "-"


def test_the_json_has_every_run(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    peers = {"Mosquitto": [replace(RUN, server_cpu=0.006)]}
    write_json([RowResult(ROWS["qos1"], [RUN, RUN], peers)], {"rounds": 2}, path)
    document = json.loads(path.read_text())
    assert document["options"] == {"rounds": 2}
    assert document["rows"][0]["row"] == "qos1"
    assert [run["received"] for run in document["rows"][0]["gateway"]] == [1000, 1000]
    assert document["rows"][0]["gateway"][0]["server_us"] == pytest.approx(2.0)
    assert document["rows"][0]["peers"]["Mosquitto"]["ratio"] == pytest.approx(3.0)
    assert len(document["rows"][0]["peers"]["Mosquitto"]["runs"]) == 1
    assert document["machine"]["cores"] >= 1


def test_every_row_can_be_chosen() -> None:
    assert set(get_args(RowName)) == set(ROWS)


def test_the_options_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    app("--help", exit_on_error=False, result_action="return_value")
    text = capsys.readouterr().out
    assert all(option in text for option in ("--rows", "--rounds", "--seconds", "--messages", "--json"))
