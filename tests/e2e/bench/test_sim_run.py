"""`kaa-sim run` on a real gateway: every protocol and kind of client, reactions, churn, criteria, reports."""

import asyncio
import contextlib
import csv
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import nats
import pytest
from kaa_bench.compare.instruments import Sink
from kaa_bench.packets import APP_VERSION
from kaa_bench.processes import INSTANCE, Gateway, NatsServer, free_port
from kaa_gateway.bus import subjects
from kaa_gateway.wire import esp
from nats.aio.msg import Msg

from tests.support.sim import EXTENSIONS, FullGateway, fleet, run, target

END_S = 60.0


@pytest.fixture
def gateway() -> Iterator[FullGateway]:
    with NatsServer() as server, FullGateway(server) as gateway, Sink(server.address, answers=True):
        yield gateway


def test_every_protocol_and_kind_of_client_is_simulated(
    gateway: FullGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleets = {
        "m0": fleet("m0", "mqtt", "qos: 0"),
        "m1": fleet("m1", "mqtt", "churn: 300ms"),
        "ma": fleet("ma", "mqtt", "answers: true", "batch: 3"),
        "m5": fleet("m5", "mqtt", "mqtt-version: 5", "churn: 300ms"),
        "q5": fleet("q5", "mqtt", "mqtt-version: 5", "qos: 0"),
        "a5": fleet("a5", "mqtt", "mqtt-version: 5", "answers: true", "qos: 1"),
        "i5": fleet("i5", "mqtt", "mqtt-version: 5", "clients: independent"),
        "mt": fleet("mt", "mqtt", "transport: tls"),
        "mw": fleet("mw", "mqtt", "transport: websocket", "answers: true"),
        "ms": fleet("ms", "mqtt", "transport: websocket-tls", "churn: 500ms"),
        "h": fleet("h", "http"),
        "c": fleet("c", "coap"),
        "k": fleet("k", "kpudp"),
        "mi": fleet("mi", "mqtt", "clients: independent"),
        "ti": fleet("ti", "mqtt", "clients: independent", "transport: tls"),
        "hi": fleet("hi", "http", "clients: independent"),
        "ci": fleet("ci", "coap", "clients: independent"),
    }
    scenario = (
        f"name: everything\nduration: 4s\nramp-up: 200ms\nfleets:\n{''.join(fleets.values())}"
        + target(gateway)
    )
    summary, report = tmp_path / "summary.json", tmp_path / "report.html"
    status = run(
        tmp_path / "s.yml", scenario, "--processes", "2", "--server-pid", str(gateway.pid),
        "--json", str(summary), "--html", str(report),
    )  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0, out
    assert "passed" in out
    found = json.loads(summary.read_text())
    assert found["passed"]
    assert found["failures"] == []
    assert found["total"]["devices_connected"] == found["devices"] == 34
    assert found["connected_most"] > 0
    assert found["total"]["server_cpu_us_per_message"] > 0
    assert set(found["fleets"]) == set(fleets)
    for name, counts in found["fleets"].items():
        assert counts["sent"] == counts["acknowledged"] > 0, name
        assert counts["errors"] == {}, name
        # A message of QoS 0 is done when it is written, within the millisecond that the event loop's clock shows.
        assert counts["latency_us"]["50"] > 0 or name in ("m0", "q5")
    assert found["fleets"]["m1"]["connects"] > 2
    page = report.read_text()
    assert 'everything: <span class="passed">passed' in page
    # Three plots of each fleet and of all, for a desk and for a phone.
    assert page.count("<svg") == 6 * (len(fleets) + 1)
    assert "127.0.0.1 (" in page
    assert "name: everything" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    for start in range(3):
        plot = page.split("<svg")[start + 1].split("</svg>")[0]
        ElementTree.fromstring(f"<svg{plot}</svg>")


def test_devices_apply_configurations_and_carry_out_commands(gateway: FullGateway, tmp_path: Path) -> None:
    """Extensions of the test push until each has heard from both fleets' devices, whatever the machine's pace."""
    heard: dict[str, list[tuple[str, object]]] = {name: [] for name in EXTENSIONS}
    devices = {f"{name}-{number}" for name in ("m", "k") for number in range(2)}
    done = threading.Event()

    def complete() -> bool:
        return all({token for token, _ in messages} >= devices for messages in heard.values())

    async def push() -> None:
        connected = await nats.connect(f"nats://127.0.0.1:{gateway._nats.ports[0]}")

        async def take(message: Msg) -> None:
            request = esp.decode_client_data(message.data)
            name = message.subject.split(".")[3]
            heard[name].append((f"{request.endpoint_id}", json.loads(request.payload)))
            assert request.resource_path in ("/applied/json", "/result/reboot")

        for name in EXTENSIONS:
            subject = subjects.service(name, "esp", subjects.CLIENT_DATA)
            await connected.subscribe(subject, cb=take)
        subject = subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA)
        while not done.is_set():
            if complete():
                # What Ctrl-C does: the run ends early, and in order.
                done.set()
                signal.raise_signal(signal.SIGINT)
            for token in devices:
                for extension, path, document in (
                    ("cmx", "/config/json", {"configId": "c1", "config": {"rate": 1}}),
                    ("cex", "/command/reboot", [{"id": 7, "payload": {}}]),
                    ("cex", "/command/unknown", [{"id": 8, "payload": {}}]),
                    ("cmx", "/config/json", ["not a configuration"]),
                ):
                    payload = json.dumps(document).encode()
                    datum = esp.encode_extension_data(
                        "", 0, 0, APP_VERSION, extension, token, path, None, payload, 200
                    )
                    await connected.publish(subject, datum)
            await asyncio.sleep(0.2)
        await connected.close()

    pushing = threading.Thread(target=lambda: asyncio.run(push()))
    pushing.start()
    commands = ("configuration: cmx", "commands: {extension: cex, types: [reboot]}")
    scenario = f"name: pushes\nduration: 60s\nfleets:\n{fleet('m', 'mqtt', *commands)}{fleet('k', 'kpudp', *commands)}"
    summary = tmp_path / "summary.json"
    try:
        status = run(tmp_path / "s.yml", scenario + target(gateway), "--json", str(summary))
    finally:
        done.set()
        pushing.join(END_S)
    found = json.loads(summary.read_text())
    assert status == 0, found
    assert complete(), heard
    assert found["remarks"] == ["interrupted before its end"]
    assert ("m-0", {"configId": "c1", "statusCode": 200, "reasonPhrase": "ok"}) in heard["cmx"]
    assert ("k-1", [{"id": 7, "statusCode": 200, "payload": {"done": "reboot"}}]) in heard["cex"]
    for counts in found["fleets"].values():
        assert counts["configurations_applied"] > 0
        assert counts["commands_executed"] > 0
        assert counts["pushes"] > counts["configurations_applied"] + counts["commands_executed"]


def test_criteria_that_are_not_met_and_errors_by_kind_make_a_failure(
    gateway: FullGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "extension: nobody"
    fleets = "".join(
        fleet(name, protocol, wrong, *more)
        for name, protocol, more in (
            ("m", "mqtt", ["answers: true"]), ("q", "mqtt", []), ("h", "http", []), ("c", "coap", []),
            ("k", "kpudp", []),
        )
    )  # fmt: skip
    scenario = f"name: refused\nduration: 1s\nfleets:\n{fleets}" + target(gateway) + "criteria: {p99: 0ms}\n"
    summary, report = tmp_path / "summary.json", tmp_path / "report.html"
    status = run(tmp_path / "s.yml", scenario, "--json", str(summary), "--html", str(report))
    assert status == 1
    found = json.loads(summary.read_text())
    kinds = {name: list(counts["errors"]) for name, counts in found["fleets"].items()}
    assert kinds["m"] == ["error 404"]
    assert kinds["h"] == ["status 404"]
    assert kinds["c"] == ["code 4.04"]
    assert kinds["k"] == ["reset 404"]
    assert [failure.split(":")[0] for failure in found["failures"]][:2] == ["errors", "acknowledged"]
    assert "failed: errors:" in capsys.readouterr().out
    assert "<h2>Errors</h2>" in report.read_text()


def test_a_gateway_that_is_not_there_is_counted_and_the_run_ends(tmp_path: Path) -> None:
    with NatsServer() as server:
        nobody = Gateway(server)
        fleets = fleet("m", "mqtt", "timeout: 300ms") + fleet("h", "http", "timeout: 300ms")
        scenario = f"name: nobody\nduration: 1s\nfleets:\n{fleets}" + target(nobody)
        summary = tmp_path / "summary.json"
        assert run(tmp_path / "s.yml", scenario, "--json", str(summary)) == 1
        nobody.stop()
    found = json.loads(summary.read_text())
    assert found["connected_most"] == 0
    assert set(found["total"]["errors"]) == {"connect: ConnectionRefusedError"}


def test_a_run_that_nothing_connects_to_ends_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with NatsServer() as server:
        nobody = Gateway(server)
        scenario = f"name: nobody\nduration: 1h\ngive-up: 5s\nfleets:\n{fleet('m', 'mqtt')}" + target(nobody)
        assert run(tmp_path / "s.yml", scenario) == 1
        nobody.stop()
    found = re.search(r"failed: no device connected in 5 s: \d+ x connect: (\w+)", capsys.readouterr().out)
    assert found is not None
    assert found[1] == "ConnectionRefusedError"


def test_stages_sources_files_and_outputs(gateway: FullGateway, tmp_path: Path) -> None:
    payload = tmp_path / "sample.json"
    payload.write_text('{"x": 1}')
    sources = "sources: [127.0.0.2, 127.0.0.3]"
    stages = "stages: [{duration: 1s, rate: 1}, {duration: 0s, rate: 5}]"
    fleets = {
        "q": fleet("q", "mqtt", "qos: 2", sources, "criteria: {errors: 0, p99: 30s}"),
        "v": fleet("v", "mqtt", "qos: 2", "mqtt-version: 5", sources),
        "h": fleet("h", "http", sources),
        "c": fleet("c", "coap", sources),
        "k": fleet("k", "kpudp", sources),
        "f": fleet("f", "mqtt", f"payload-files: [{payload}]").replace(
            "    payload: {x: {kind: walk, start: 0, step: 1}}\n", ""
        ),
        "s": fleet("s", "mqtt", stages),
    }
    scenario = f"name: more\nduration: 3s\nfleets:\n{''.join(fleets.values())}" + target(gateway)
    summary, seconds, port = tmp_path / "summary.json", tmp_path / "seconds.csv", free_port()
    scraped: list[str] = []

    def scrape() -> None:
        while not any('kaa_sim_acknowledged_total{fleet="q"}' in text for text in scraped):
            with contextlib.suppress(OSError):
                scraped.append(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
            time.sleep(0.05)

    scraping = threading.Thread(target=scrape, daemon=True)
    scraping.start()
    status = run(
        tmp_path / "s.yml", scenario, "--json", str(summary), "--csv", str(seconds),
        "--prometheus-port", str(port),
    )  # fmt: skip
    assert status == 0
    scraping.join(END_S)
    assert not scraping.is_alive()
    found = json.loads(summary.read_text())["fleets"]
    for name in fleets:
        assert found[name]["sent"] == found[name]["acknowledged"] > 0, (name, found[name])
    # A second at 10 messages a second and device, and two at 50, beside three at 10.
    assert found["s"]["sent"] > 2 * found["q"]["sent"]
    rows = list(csv.DictReader(seconds.open()))
    assert {row["fleet"] for row in rows} == {*fleets, "all"}
    assert any(float(row["acknowledged_per_second"]) > 0 for row in rows)


def test_pushes_to_devices(gateway: FullGateway, tmp_path: Path) -> None:
    nats_url = f"nats://127.0.0.1:{gateway._nats.ports[0]}"
    pushes = f"downlink: {{interval: 100ms, nats: '{nats_url}', instance: {INSTANCE}}}"
    fleets = (
        fleet("m", "mqtt", pushes)
        + fleet("k", "kpudp", pushes)
        + fleet("v", "mqtt", "mqtt-version: 5", pushes)
    )
    scenario = f"name: down\nduration: 3s\nfleets:\n{fleets}" + target(gateway)
    summary, page = tmp_path / "summary.json", tmp_path / "page.html"
    status = run(
        tmp_path / "s.yml", scenario, "--json", str(summary), "--html", str(page), "--processes", "2"
    )
    found = json.loads(summary.read_text())
    assert status == 0, found["failures"]
    for name in "mkv":
        downlink = found["fleets"][name]["downlink"]
        assert downlink["sent"] == downlink["received"] > 10, name
        assert downlink["latency_us"]["50"] > 0
    assert "<h2>Downlink</h2>" in page.read_text()


def test_pushes_without_nats_are_an_error(
    gateway: FullGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes = f"downlink: {{interval: 100ms, nats: 'nats://127.0.0.1:{free_port()}', instance: {INSTANCE}}}"
    scenario = f"name: down\nduration: 1h\nfleets:\n{fleet('m', 'mqtt', pushes)}" + target(gateway)
    assert run(tmp_path / "s.yml", scenario) == 1
    assert "kaa-sim: downlink.nats: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--html", "--csv"])
def test_a_file_that_cannot_be_written_is_named_before_the_run(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "no" / "file"
    scenario = f"name: long\nduration: 1h\nfleets:\n{fleet('m', 'mqtt')}"
    assert run(tmp_path / "s.yml", scenario, option, str(path)) == 2
    assert capsys.readouterr().err == f"kaa-sim: {path} cannot be written: No such file or directory\n"


def test_ports_beside_the_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    scenario = f"name: x\nduration: 1h\ngive-up: 500ms\nfleets:\n{fleet('m', 'mqtt')}"
    page = tmp_path / "report.html"
    path = tmp_path / "s.yml"
    assert run(path, scenario, "--port.mqtt", str(port), "--host", "localhost", "--html", str(page)) == 1
    assert f"localhost (mqtt {port})" in page.read_text()
    assert run(path, scenario, "--port.mqt", "1884") == 2
    assert (
        "--port.mqt: expected one of coap, http, https, kpudp, kpudp-secure, mqtt" in capsys.readouterr().err
    )


def test_a_scenario_that_is_wrong_has_a_status_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "s.yml", "name: x\n") == 2
    assert "kaa-sim: " in capsys.readouterr().err
