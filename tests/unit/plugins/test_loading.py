"""Finding the class of a protocol, its options, and the configuration's checks."""

import sys
from pathlib import Path

import pytest
from kaa_gateway.app.changes import applicable, differences
from kaa_gateway.app.plugins import load_checked, options_of, problems
from kaa_gateway.config import load
from kaa_gateway.errors import ConfigError
from kaa_gateway.plugins.loading import load_protocol, read_options

from tests.support.config import problems as config_problems
from tests.support.line_protocol import Lines

KEY = "kaa.kpc.transports.protocols.lines.protocol"
BASE = """
kaa:
  applications: {app: {versions: {app_v1: {allowed-extension-instances: [dcx]}}}}
  extension-instances: {dcx: {}}
  kpc:
    identity: {provider: open}
    transports:
      protocols:
        lines:
          protocol: tests.support.line_protocol:Lines
          port: 5000
          app-version: app_v1
"""


def write(directory: Path, text: str = BASE) -> Path:
    path = directory / "service-config.yml"
    path.write_text(text, encoding="utf-8")
    return path


class TestClass:
    def test_by_module_and_class(self) -> None:
        assert load_protocol(KEY, "tests.support.line_protocol:Lines") is Lines

    def test_by_entry_point(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        info = tmp_path / "lines-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lines\nVersion: 1\n")
        (info / "entry_points.txt").write_text(
            "[kaa_gateway.protocols]\nlines = tests.support.line_protocol:Lines\n"
        )
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
        assert load_protocol(KEY, "lines") is Lines

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("nothing", "no protocol 'nothing' is installed"),
            ("no_such_module:X", "cannot be loaded: ModuleNotFoundError"),
            ("tests.support.line_protocol:Nothing", "cannot be loaded: AttributeError"),
            ("tests.support.line_protocol:Answer", "is not a subclass of DeviceProtocol"),
        ],
    )
    def test_what_is_wrong(self, name: str, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            load_protocol(KEY, name)
        assert error.value.detail.startswith(f"{KEY}: ")
        assert said in error.value.detail

    def test_reasons_are_few_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for reasons in (("Not A Name",), tuple(f"r{i}" for i in range(33))):
            monkeypatch.setattr(Lines, "reasons", reasons)
            with pytest.raises(ConfigError):
                load_protocol(KEY, "tests.support.line_protocol:Lines")


class TestOptions:
    def test_have_the_types_of_their_defaults(self) -> None:
        options = read_options("key", Lines, ["greeting=a=b", "timer=2.5", "shout=true"])
        assert options == {"greeting": "a=b", "timer": 2.5, "shout": True}
        assert read_options("key", Lines, []) == Lines.options_with_defaults

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("volume=1", "key: volume is not an option; there is: greeting, shout, timer"),
            ("timer=soon", "key: timer: expected a value of type float, got 'soon'"),
            ("shout=1", "key: shout: expected true or false, got '1'"),
        ],
    )
    def test_what_is_wrong(self, option: str, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            read_options("key", Lines, [option])
        assert error.value.detail == said


class TestConfiguration:
    def test_a_whole_one(self, tmp_path: Path) -> None:
        path = write(tmp_path, BASE + "          options: [greeting=hello, shout=true]\n")
        assert config_problems(path) == []
        config = load_checked(path, {"KAA_KPC_TRANSPORTS_PROTOCOLS_LINES_PORT": "6000"})
        settings = config.transports.protocols["lines"]
        assert settings.port == 6000
        assert options_of("lines", settings)["greeting"] == "hello"
        assert problems(config.transports) == []

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("port: 5000", "port: 1883"), "port 1883 is that of"),
            (("          port: 5000\n", ""), "lines: needs a port"),
            (("          app-version: app_v1\n", ""), "lines: needs an app-version"),
            (("app-version: app_v1", "app-version: app_v9"), "is not a version of an application"),
            (("lines:\n", "mqtt:\n"), "is the name of a protocol of the gateway itself"),
            (("port: 5000", "port: 5000\n          dtls.enabled: true"), "transport is tcp, which has tls"),
            (
                ("port: 5000", "port: 5000\n          tls.enabled: true"),
                "needs kaa.kpc.transports.protocols.lines.tls.cert-file",
            ),
            (("protocol: tests.support.line_protocol:Lines", "protocol: a b"), "expected module:Class"),
        ],
    )
    def test_what_is_wrong(self, tmp_path: Path, change: tuple[str, str], said: str) -> None:
        found = config_problems(write(tmp_path, BASE.replace(*change)))
        assert [line for line in found if said in line], found

    def test_nine_protocols_are_too_many(self, tmp_path: Path) -> None:
        more = "".join(
            f"        p{i}: {{protocol: 'a:B', port: {7000 + i}, app-version: app_v1}}\n" for i in range(8)
        )
        assert any("there may be 8" in line for line in config_problems(write(tmp_path, BASE + more)))

    def test_an_option_that_is_wrong_is_refused_whole(self, tmp_path: Path) -> None:
        path = write(tmp_path, BASE + "          options: [volume=1]\n")
        with pytest.raises(ConfigError, match="volume is not an option"):
            load_checked(path, {})

    def test_what_a_running_gateway_applies(self, tmp_path: Path) -> None:
        old = load(write(tmp_path), {})
        text = BASE.replace("port: 5000", "port: 5001") + (
            "          options: [shout=true]\n          idle-timeout: 7\n          peers: 99\n"
        )
        new = load(write(tmp_path, text), {})
        taken = applicable(old, new).transports.protocols["lines"]
        assert (taken.options, taken.idle_timeout, taken.port, taken.peers) == (
            ("shout=true",), 7.0, 5000, 100_000,
        )  # fmt: skip
        assert "kaa.kpc.transports.protocols.lines" in set(differences(applicable(old, new), new))
