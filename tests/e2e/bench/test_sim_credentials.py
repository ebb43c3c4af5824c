"""`kaa-sim` on a gateway whose clients need credentials: passwords, certificates, TLS, WebSocket."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kaa_bench.compare.instruments import Sink
from kaa_bench.packets import APP_VERSION
from kaa_bench.processes import NatsServer, free_port
from kaa_bench.sim.cli import app
from kaa_gateway.identity.passwords import hashed

from tests.support.sim import FullGateway, fleet, run, target


class StrictGateway(FullGateway):
    """Clients need a user name and a password, or a certificate."""

    def configuration(self) -> dict[str, object]:
        document: dict[str, object] = super().configuration()
        kaa = document["kaa"]
        assert isinstance(kaa, dict)
        device = self.authority.issue("device")
        file = self.directory / "identity.yml"
        users = {f"user-{number}": {"password": hashed(b"secret")} for number in range(2)}
        serial = str(device.certificate.serial_number)
        certificates: dict[str, object] = {device.certificate.issuer.rfc4514_string(): {serial: {}}}
        file.write_text(json.dumps({"clients": users, "certificates": certificates}))
        kaa["kpc"]["identity"] = {
            "provider": "open",
            "static": {"file": str(file)},
            "clients": {"provider": "static"},
        }
        mqtt, http = kaa["kpc"]["transports"]["mqtt"], kaa["kpc"]["transports"]["http"]
        mqtt["client-authentication"] = http["client-authentication"] = "required"
        accepted = {"client-certificate": "optional", "ca-file": str(self.authority.file)}
        mqtt["tls"] |= accepted
        mqtt["websocket"]["tls"] |= accepted
        self.encrypted["https"] = free_port()
        http["tls"] = {**mqtt["tls"], "port": self.encrypted["https"]}
        return document


def check_load_over_tls(
    gateway: StrictGateway, sim: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """`kaa-sim load` over TLS, with a client certificate in the place of a password."""
    port = str(gateway.encrypted["mqtt-tls"])
    common = ("--app-version", APP_VERSION, "--seconds", "0.3", "--connections", "2")
    trusted = ("--ca-file", str(gateway.authority.file))
    certificate = ("--cert-file", str(gateway.directory / "device.pem"))
    key = ("--key-file", str(gateway.directory / "device.key"))
    mqtts = ("load", "mqtt", "--transport", "tls", "--port", port, *common)
    assert sim(*mqtts, "--answered", *trusted, *certificate, *key) == 0
    assert "its own limit" not in capsys.readouterr().out
    https = ("load", "http", "--transport", "tls", "--port", str(gateway.encrypted["https"]), *common)
    assert sim(*https, *trusted, *certificate, *key) == 0
    # Without a certificate of its own, trust, or TLS.
    for arguments, said in (
        ((*mqtts, *trusted), "CONNECT of device 0 was refused: CONNACK 5 (not authorized)"),
        (mqtts, "certificate verify failed"),
        ((*mqtts, *trusted, *certificate), "--cert-file and --key-file go together"),
        ((*mqtts, "--ca-file", "/no/file"), "ca-file /no/file cannot be used"),
        (("load", "mqtt", *common, *trusted), "certificates need --transport tls"),
        (("load", "coap", "--transport", "tls", *common), "loads of coap are not carried by tls"),
    ):
        assert sim(*arguments) == 1
        assert said in capsys.readouterr().err


def check_load_and_connect(
    gateway: StrictGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kaa-sim load` and `kaa-sim connect` with and without credentials."""

    def sim(*arguments: str) -> int:
        capsys.readouterr()
        status = app(arguments, exit_on_error=False, result_action="return_value")
        assert isinstance(status, int)
        return status

    mqtt, http = (str(gateway.addresses[protocol][1]) for protocol in ("mqtt", "http"))
    user = ("--user", "user-0", "--password", "secret")
    common = ("--app-version", APP_VERSION, "--seconds", "0.3", "--connections", "2")
    tokens = tmp_path / "tokens.csv"
    assert sim("load", "mqtt", "--port", mqtt, *common) == 1
    assert "CONNECT of device 0 was refused: CONNACK 5 (not authorized)" in capsys.readouterr().err
    assert sim("load", "mqtt", "--port", mqtt, "--mqtt-version", "5", *common) == 1
    assert "CONNACK 0x87 (not authorized)" in capsys.readouterr().err
    sources = ("--sources", "127.0.0.2", "--sources", "127.0.0.3")
    requests = ("load", "mqtt", "--port", mqtt, "--answered", *common, *user)
    assert sim(*requests, "--tokens", str(tokens), *sources) == 0
    assert sim("load", "http", "--port", http, *common, *user, *sources) == 0
    for version in ("3.1.1", "5"):
        status = sim(
            "load", "mqtt", "--port", mqtt, *common, *user, "--extension", "nobody", "--mqtt-version", version
        )
        assert status == 1
        said = capsys.readouterr().err
        assert f"refuses messages to kp1/{APP_VERSION}/nobody/sim-000000/json: " in said
        assert ("error 404" if version == "3.1.1" else "PUBACK 0x90") in said
    figures = tmp_path / "connects.json"
    connect = ("connect", "--count", "20", "--rate", "100", "--json", str(figures))
    assert sim(*connect, "--port", mqtt, "--user", "user-1", "--password", "secret", *sources) == 0
    document = json.loads(figures.read_text())
    assert (document["connected"], document["planned"], document["errors"]) == (20, 20, {})
    assert document["latency_us"]["50"] > 0
    tls: tuple[str, ...] = ("--transport", "tls", "--port", str(gateway.encrypted["mqtt-tls"]))
    tls += ("--ca-file", str(gateway.authority.file), "--cert-file", str(gateway.directory / "device.pem"))
    assert sim(*connect, *tls, "--key-file", str(gateway.directory / "device.key")) == 0
    assert sim(*connect, *tls) == 1
    assert "`cert-file` and `key-file` go together" in capsys.readouterr().err
    check_load_over_tls(gateway, sim, capsys)
    assert sim(*connect, "--port", mqtt) == 1
    assert json.loads(figures.read_text())["errors"] == {"CONNACK 5 (not authorized)": 20}


def test_devices_present_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By user and password, of the scenario or of a CSV file, or by a certificate; and are refused without."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("token,user,password\ntoken-a,user-0,secret\ntoken-b,user-1,secret\n")
    with (
        NatsServer() as server,
        StrictGateway(server) as gateway,
        Sink(server.address, answers=True),
    ):
        names = "user: 'user-{device}'", "password: secret"
        files = f"cert-file: {gateway.directory}/device.pem", f"key-file: {gateway.directory}/device.key"
        fleets = (
            fleet("m", "mqtt", *names),
            fleet("l", "mqtt", f"tokens: {tokens}"),
            fleet("c", "mqtt", "transport: tls", *files),
            fleet("h", "http", *names),
            fleet("s", "http", "transport: tls", *files),
            fleet("r", "mqtt", "criteria: {connected: 0, acknowledged: 0, errors: 1000}"),
        )
        scenario = f"name: strict\nduration: 2s\nfleets:\n{''.join(fleets)}" + target(gateway)
        scenario += "criteria: {errors: 1000, acknowledged: 0, connected: 0}\n"
        summary = tmp_path / "summary.json"
        assert run(tmp_path / "s.yml", scenario, "--json", str(summary)) == 0
        check_load_and_connect(gateway, tmp_path, capsys)
    found = json.loads(summary.read_text())["fleets"]
    for name in "mlchs":
        assert found[name]["sent"] == found[name]["acknowledged"] > 0, (name, found[name])
        assert found[name]["errors"] == {}
    assert found["r"]["devices_connected"] == 0
    assert set(found["r"]["errors"]) == {"CONNACK 5 (not authorized)"}


def test_a_load_over_websocket_and_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        NatsServer() as server,
        StrictGateway(server) as gateway,
        Sink(server.address, answers=False),
    ):
        arguments = (
            "load", "mqtt", "--transport", "websocket-tls", "--port", str(gateway.encrypted["websocket-tls"]),
            "--app-version", APP_VERSION, "--messages", "100", "--connections", "2",
            "--ca-file", str(gateway.authority.file), "--cert-file", str(gateway.directory / "device.pem"),
            "--key-file", str(gateway.directory / "device.key"),
        )  # fmt: skip
        assert app(arguments, exit_on_error=False, result_action="return_value") == 0
        found = re.search(r"acknowledged +(\d+)", capsys.readouterr().out)
        assert found is not None
        assert found[1] == "100"
