"""The whole of the comparison with little work, and what it says of servers that are not there or fail."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kaa_bench.cli import app
from kaa_bench.compare import comparison as compare
from kaa_bench.compare import measure
from kaa_bench.compare.comparison import Comparison, run_rounds
from kaa_bench.compare.documents import BEGIN, END
from kaa_bench.compare.figures import Scale
from kaa_bench.compare.measure import Run, Work
from kaa_bench.compare.probes import latency, tail
from kaa_bench.compare.servers import Servers
from kaa_bench.errors import BenchError
from kaa_bench.peers import schemas
from kaa_bench.peers.servers import Aiocoap, Mosquitto
from rich.console import Console

from tests.support.schemas import rfc_schema

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WARM_UP_S", 0.05)
    for module in (latency, tail):
        monkeypatch.setattr(module, "WARM_UP_S", 0.05)


def test_a_quick_comparison_measures_every_kind_of_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"{BEGIN}\n{END}\n")
    rows = [
        "qos1",
        "encode",
        "decode",
        "publish",
        "connect",
        "disconnect",
        "memory",
        "latency-1000",
        "tail-http",
        "push",
        "workers",
    ]
    status = app(
        ["compare", "--quick", "--gateway-only", "--rows", *rows, "--json", str(tmp_path / "bench.json"),
         "--plots", str(tmp_path / "plots"), "--markdown", str(document)],
        exit_on_error=False, result_action="return_value",
    )  # fmt: skip
    assert status == 0
    assert "lost of acknowledged: 0 of " in capsys.readouterr().out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [row["row"] for row in found["rows"]] == rows[:1]
    probes = {probe["row"]: probe["subjects"] for probe in found["probes"]}
    assert list(probes) == rows[1:]
    assert list(probes["encode"]) == ["gateway, native", "gateway, from Python", "fastavro"]
    assert list(probes["publish"]) == ["gateway's link", "nats-py"]
    assert list(probes["latency-1000"]) == [
        "bare NATS request", "gateway, MQTT", "gateway, HTTP", "gateway, CoAP",
    ]  # fmt: skip
    assert list(probes["tail-http"]) == ["bare NATS request", "gateway, HTTP"]
    assert list(probes["workers"]) == ["1 worker", "2 workers"]
    for name, subjects in probes.items():
        for subject in subjects.values():
            (figure,) = subject["figures"]
            # What was used once is used again, so that a hundred connections may fit into what is there.
            assert figure["value"] > 0 or name == "memory"
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".svg"}
    assert "| ClientData, encode (us CPU) |" in document.read_text()


def test_a_peer_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = Run(messages=1, acknowledged=1, seconds=1.0, server_cpu=1e-6, generator_cpu=1e-6)

    def fail(*_: object) -> Run:
        raise BenchError("stalled")

    monkeypatch.setattr(compare, "measure_gateway", lambda *_: run)
    monkeypatch.setattr(compare, "measure_peer", fail)
    monkeypatch.setattr(Servers, "nats", None)
    monkeypatch.setattr(Servers, "gateway", None)
    monkeypatch.setattr(Servers, "peers", lambda *_: [Aiocoap()])
    results = Comparison.of(["qos1"])
    with (tmp_path / "out").open("w") as out, ExitStack() as stack:
        progress = Console(file=out, width=200)
        run_rounds(
            results, 2, Work(messages=1), Scale.quick(), Servers(stack, progress), progress, lambda: None
        )
    (result,) = results.floods
    assert (len(result.gateway), result.peers, result.failures) == (2, {}, {"aiocoap": "stalled"})


def test_a_peer_that_is_not_installed_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Mosquitto, "program", staticmethod(lambda: None))
    path = tmp_path / "out"
    with path.open("w") as out, ExitStack() as stack:
        servers = Servers(stack, Console(file=out, width=200))
        assert servers.peers(Mosquitto) == servers.peers(Mosquitto) == []
    assert path.read_text().count("Mosquitto is not installed") == 1


@pytest.mark.parametrize(
    ("schema", "name"),
    [(schemas.CLIENT_DATA, "0004-client-data"), (schemas.EXTENSION_DATA, "0004-extension-data")],
)
def test_the_peers_schemas_are_the_protocols(schema: dict[str, Any], name: str) -> None:
    assert [(field["name"], field["type"]) for field in schema["fields"]] == [
        (field["name"], field["type"]) for field in rfc_schema(name)["fields"]
    ]
