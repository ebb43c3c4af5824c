"""The command line: exit codes, and texts from which a user learns what to do."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from kaa_gateway import __version__, cli, commands
from kaa_gateway.errors import GatewayError
from kaa_gateway.identity import passwords


class Ended(NamedTuple):
    """What a command has left."""

    code: int | str | None
    stdout: str
    stderr: str


Command = Callable[..., Ended]


@pytest.fixture
def kaa_gateway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command with these arguments, in this process."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["kaa-gateway", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return Ended(exit_.value.code or 0, *capsys.readouterr())

    return run


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(kaa_gateway: Command, arguments: list[str]) -> None:
    ended = kaa_gateway(*arguments)
    assert (ended.code, ended.stdout, ended.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["run", "dev", "check-config", "version", "Device gateway"]),
        (["--help"], ["run", "dev", "check-config", "version"]),
        (["run", "--help"], ["APP_CONFIG_PATH", "/srv/kpc/service-config.yml", "NATS_URLS", "SIGTERM"]),
        (["dev", "--help"], ["--config", "--nats-port", "4222", "--data-dir", "ready", "Ctrl-C", "open"]),
        (["check-config", "--help"], ["FILE", "ok"]),
    ],
)
def test_help_teaches(kaa_gateway: Command, arguments: list[str], words: list[str]) -> None:
    ended = kaa_gateway(*arguments)
    assert ended.code == 0
    for word in words:
        assert word in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["devv"], "devv"),
        (["dev", "--nats-port", "0"], "--nats-port"),
        (["dev", "--nats-port", "65536"], "--nats-port"),
        (["dev", "--nats-port", "x"], "--nats-port"),
        (["dev", "--port", "1"], "--port"),
        (["check-config"], "FILE"),
    ],
)
def test_wrong_usage(kaa_gateway: Command, arguments: list[str], said: str) -> None:
    ended = kaa_gateway(*arguments)
    assert ended.code != 0
    assert said in ended.stdout + ended.stderr


def test_check_config_of_a_good_file(kaa_gateway: Command, tmp_path: Path) -> None:
    file = tmp_path / "service-config.yml"
    file.write_text("server:\n  port: 8008\n")
    ended = kaa_gateway("check-config", str(file))
    assert (ended.code, ended.stdout, ended.stderr) == (0, "ok\n", "")


def test_check_config_names_each_problem_with_its_line(kaa_gateway: Command, tmp_path: Path) -> None:
    file = tmp_path / "service-config.yml"
    file.write_text(
        "server:\n  port: http\nkaa:\n  kpc:\n    transports: {mqtt: {tcp: {prot: 1883}}}\n    workers: 0\n"
    )
    ended = kaa_gateway("check-config", str(file))
    assert ended.code == 1
    lines = ended.stdout.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{file}:2", "server.port"],
        [f"{file}:5", "kaa.kpc.transports.mqtt.tcp.prot"],
        [f"{file}:6", "kaa.kpc.workers"],
    ]
    assert "expected an integer from 1 to 65535" in lines[0]
    assert '"kaa.kpc.transports.mqtt.tcp.port"' in lines[1]


def test_check_config_with_warnings_is_ok(
    kaa_gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAA_KPC_UNKNOWN_KEYS", "warn")
    file = tmp_path / "service-config.yml"
    file.write_text("kaa.kpc.retain: true\n")
    ended = kaa_gateway("check-config", str(file))
    assert ended.code == 0
    warning, verdict = ended.stdout.splitlines()
    assert warning.startswith(f"{file}:1: kaa.kpc.retain: unknown key")
    assert verdict == "ok"


def test_check_config_looks_at_the_environment(
    kaa_gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_PORT", "http")
    file = tmp_path / "service-config.yml"
    file.write_text("")
    ended = kaa_gateway("check-config", str(file))
    assert ended.code == 1
    assert ended.stdout.startswith("SERVER_PORT: ")


def test_hash_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert commands.hash_password() == 0
    assert passwords.matches(b"secret", capsys.readouterr().out.strip())
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(GatewayError, match="no password given"):
        commands.hash_password()


def test_check_config_of_no_file(kaa_gateway: Command, tmp_path: Path) -> None:
    ended = kaa_gateway("check-config", str(tmp_path / "missing.yml"))
    assert ended.code == 1
    assert ended.stdout == f"{tmp_path / 'missing.yml'}: no such file\n"


def test_check_config_of_kpc(kaa_gateway: Command, tmp_path: Path) -> None:
    file = tmp_path / "service-config.yml"
    file.write_text("kaa.kpc.transports.mqtt.tcp.port: 1883\n")
    ended = kaa_gateway("check-config", "--kpc", str(file))
    assert ended.code == 0
    first, *_, last = ended.stdout.splitlines()
    assert (first, last) == ("the same: 1 settings", "the gateway starts with this")
    file.write_text("kaa.kpc.retain: true\n")
    assert kaa_gateway("check-config", "--kpc", str(file)).code == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(kaa_gateway: Command, shell: str) -> None:
    ended = kaa_gateway("completion", shell)
    assert ended.code == 0
    for word in ("kaa-gateway", "check-config", "nats-port"):
        assert word in ended.stdout
