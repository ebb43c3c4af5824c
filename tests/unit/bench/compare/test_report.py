"""What is derived from a run, and how it is shown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
from kaa_bench.cli import RowName, app
from kaa_bench.compare.comparison import Comparison
from kaa_bench.compare.documents import BEGIN, END, write_json, write_markdown
from kaa_bench.compare.figures import Figure, Probe
from kaa_bench.compare.measure import Run
from kaa_bench.compare.plots import plots, write_plots
from kaa_bench.compare.probes import PROBES
from kaa_bench.compare.report import (
    ProbeResult,
    RowResult,
    figure_line,
    print_figures,
    print_table,
    progress_line,
    spread,
)
from kaa_bench.compare.rows import ROWS
from kaa_bench.errors import BenchError
from rich.console import Console

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
    assert libcoap[-5:] == ["2,000", "8.00", "4.0x", "1.00", "-"]
    assert "200.0x" in text
    assert "CoAP CON POST, 64 devices, window 1, aiocoap: 7 retransmitted" in text
    assert "HTTP POST, 64 keep-alive connections, gateway: 1 x closed by peer" in text


def test_no_values_are_a_dash() -> None:
    assert spread([]) == "-"


def comparison() -> Comparison:
    peers = {"Mosquitto": [replace(RUN, server_cpu=0.006)]}
    encode = ProbeResult(
        Probe("encode", "ClientData, encode", "us CPU", lambda _, __: []),
        {"gateway, native": [Figure(0.1), Figure(0.3), Figure(0.2)], "fastavro": [Figure(6.0)]},
    )
    latency = [
        ProbeResult(
            Probe(f"latency-{rate}", f"round trip at {rate}/s", "us, median", lambda _, __: [], rate=rate),
            {"bare NATS request": [Figure(100.0, {"p50": 100.0, "p99": 300.0, "p99.9": 700.0}, ("late",))]},
        )
        for rate in (100, 1000)
    ]
    return Comparison([RowResult(ROWS["qos1"], [RUN, RUN], peers, {"amqtt": "stalled"})], [encode, *latency])


def test_the_json_has_every_run(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_json(comparison(), {"rounds": 2}, path)
    document = json.loads(path.read_text())
    assert document["options"] == {"rounds": 2}
    (row,) = document["rows"]
    assert row["row"] == "qos1"
    assert row["failures"] == {"amqtt": "stalled"}
    assert [run["received"] for run in row["gateway"]] == [1000, 1000]
    assert row["gateway"][0]["server_us"] == pytest.approx(2.0)
    assert row["peers"]["Mosquitto"]["ratio"] == pytest.approx(3.0)
    assert len(row["peers"]["Mosquitto"]["runs"]) == 1
    encode, latency, _ = document["probes"]
    assert (encode["row"], encode["unit"]) == ("encode", "us CPU")
    assert encode["subjects"]["gateway, native"]["ratio"] is None
    assert encode["subjects"]["fastavro"]["ratio"] == pytest.approx(30.0)
    assert latency["subjects"]["bare NATS request"]["figures"][0]["details"]["p99"] == 300.0
    assert document["machine"]["cores"] >= 1
    assert document["versions"]["nats-server"]


def test_the_table_of_probes_has_ratios_to_the_first_line_and_tails(tmp_path: Path) -> None:
    results = comparison().probes
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    print_figures(results, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    (fastavro,) = (line.split() for line in text.splitlines() if "fastavro" in line)
    assert fastavro[-3:] == ["6", "6-6", "30.0x"]
    assert "0.1-0.3" in text
    assert text.count("300") == text.count("700") == 2
    assert "round trip at 100/s, bare NATS request: late" in text
    assert figure_line("round 1/1", results[1].probe, "x", Figure(1234.5, {}, ("late",))).endswith(
        "x: 1,234 us, median; late"
    )


def test_the_tables_are_put_between_the_marks_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"# Figures\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n")
    for _ in range(2):
        write_markdown(comparison(), "kaa-bench compare", path)
    text = path.read_text()
    assert text.startswith(f"# Figures\n\n{BEGIN}\n2")
    assert text.endswith(f"{END}\n\nThe rest.\n")
    assert "old" not in text
    assert "`kaa-bench compare`" in text
    assert "| MQTT QoS 1, window 64 | gateway | **2.00** | 2.00-2.00 |  | 2,000 | 1.00 | 3.00 |" in text
    assert "|  | fastavro | 6 | 6-6 | 30.0 |  |" in text
    assert "| bare NATS request | 100 | 100-100 |  | 300 | 700 |  |" in text
    assert "- MQTT QoS 1, window 64, amqtt failed: stalled" in text


@pytest.mark.parametrize("text", ["no marks", f"{END} {BEGIN}", f"{BEGIN} {END} {END}"])
def test_a_document_without_the_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "performance.md"
    path.write_text(text)
    with pytest.raises(BenchError, match="does not have the marks"):
        write_markdown(comparison(), "", path)
    assert path.read_text() == text


def test_the_plots_are_svg_of_everything_that_was_measured(tmp_path: Path) -> None:
    write_plots(comparison(), tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "messages.svg",
        "operations.svg",
        "latency.svg",
    }
    drawn = plots(comparison())
    for plot in drawn.values():
        assert ElementTree.fromstring(plot).tag.endswith("svg")
    assert "MQTT QoS 1, window 64<" in drawn["messages"]
    assert ">Mosquitto<" in drawn["messages"]
    assert drawn["operations"].count("<rect") == 3
    assert drawn["latency"].count("<polyline") == 2
    assert plots(Comparison()) == {}


def test_every_row_can_be_chosen() -> None:
    assert list(get_args(RowName)) == [*ROWS, *PROBES]
    assert [result.row.name for result in Comparison.of(None).floods] == list(ROWS)
    assert [result.probe.name for result in Comparison.of(["push", "qos0"]).probes] == ["push"]


def test_the_options_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    app(["compare", "--help"], exit_on_error=False, result_action="return_value")
    text = capsys.readouterr().out
    assert all(
        option in text for option in ("--rows", "--rounds", "--seconds", "--messages", "--json", "--quick")
    )
