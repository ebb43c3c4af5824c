"""kaa-ext: what it says to a command line that it cannot run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kaa_ext.cli import main as cli
from kaa_ext.cli.settings import SettingsError, convert, read
from kaa_ext.services import cmx, dcx, epmx
from kaa_gateway import __version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no service named; known: auth, cex, cmx, dcx, echo, ecr, epmx, epts, tsx"),
        (["run", "dxc"], "unknown service 'dxc'; known: auth, cex, cmx, dcx, echo, ecr, epmx, epts, tsx"),
        (["run", "a=b"], "unknown service 'b'; known: auth, cex, cmx, dcx, echo, ecr, epmx, epts, tsx"),
        (["run", "dcx", "dcx"], "two services are named 'dcx'"),
        (["run", "a.b=dcx"], "extension instance name 'a.b': expected"),
        (["run", "=dcx"], "extension instance name '': expected"),
        (["run", "dcx", "--nats", "http://u:secret@host"], "NATS URL http://***@host: expected"),
        (["run", "dcx", "--gateway-instance", "*"], "gateway instance name '*': expected"),
        (["run", "dcx", "--log-level", "loud"], "loud"),
        (["run", "dcx", "--nonsense"], "--nonsense"),
        (["walk"], "walk"),
        (["run", "dcx", "--state-replicas", "9"], "--state-replicas"),
        (["run", "dcx", "--durable", "cmx"], "--durable cmx: no service of this name is run"),
        (["new", "a.b"], "name 'a.b': expected"),
        (["new", "class"], "name 'class' cannot be that of a Python module"),
        (["new", "thermostat", "--directory", "/"], "/ is there already"),
        (["config", "set", "ep", "{}"], "--app-version"),
        (["config", "set", "ep", "@/no/such/file", "--app-version", "v"], "/no/such/file: No such file"),
        (["config", "get", "ep", "--app-version", "v", "--nats", "x://"], "NATS URL x://: expected"),
        (["command", "send", "ep", "reboot", "--timeout", "0"], "--timeout"),
        (["command", "send", "ep", "reboot", "--agent", "a.b"], "service instance 'a.b'"),
        (["data", "query", "--since", "yesterday"], "--since yesterday: expected"),
        (["auth", "add", "ep"], "--app"),
        (["auth", "add", "ep", "--app", "a", "--expires-in", "1y"], "--expires-in 1y: expected"),
        (["auth", "add-client", "c", "--expires-in", "0.5d"], "--expires-in 0.5d: expected"),
        (["auth", "expire", "t-1", "soon"], "expire soon: expected"),
        (["auth", "list", "--provider", "a.b"], "service instance 'a.b'"),
        (["data", "query", "--last", "0"], "--last"),
        (["rest", "--port", "0"], "--port"),
        (["rest", "--cex", "a.b"], "service instance 'a.b'"),
        (["rest", "--token-file", "/no/such/file"], "--token-file: /no/such/file: No such file"),
        (["metadata", "set", "ep", "{}"], "--app-version"),
        (["metadata", "delete", "ep", "--app-version", "v"], "no key named"),
        (["command", "list", "ep", "--agent", "a.b"], "service instance 'a.b'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["kaa-ext", *arguments])
    monkeypatch.delenv("KAA_APP_VERSION", raising=False)
    monkeypatch.delenv("KAA_APP", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("kaa-ext: ")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dcx: {must-confirm: epts}", "dcx: Expected array, got str - at must-confirm"),
        ("dcx: {must-confirm: [a.b]}", "dcx: must-confirm: expected names of service instances"),
        ("dcx: {must_confirm: []}", "dcx: Object contains unknown field must_confirm"),
        ("dcx: {confirmation-timeout: 0}", "dcx: confirmation-timeout: expected a number of seconds above 0"),
        ("dcx: 5", "dcx: Expected object, got int"),
        ("cmx: {}", "cmx: no service of this name is run"),
        ("tsx: {x: 1}", "tsx: tsx has no settings"),
        ("- dcx", "expected a mapping of service instances to their settings"),
        ("dcx: [", "not YAML in line 1"),
    ],
)
def test_settings_that_cannot_be_used(
    text: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "services.yml"
    path.write_text(text)
    monkeypatch.setattr("sys.argv", ["kaa-ext", "run", "dcx", "tsx", "--settings", str(path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"kaa-ext: {path}: {message}")
    assert errors.count("\n") == 1


def test_settings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "services.yml"
    path.write_text(
        "dcx: {must-confirm: [epts]}\nepmx: {access: {serial: read}, default-access: none}\ncmx:\n"
    )
    sections = read(path)
    settings = convert(path, "dcx", sections["dcx"], dcx.Settings)
    assert settings == dcx.Settings(must_confirm=frozenset({"epts"}))
    assert convert(path, "cmx", sections["cmx"], cmx.Settings) == cmx.Settings()
    access = convert(path, "epmx", sections["epmx"], epmx.Settings)
    assert isinstance(access, epmx.Settings)
    assert (access.readable("serial"), access.writable("serial"), access.readable("x")) == (
        True,
        False,
        False,
    )
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read(tmp_path / "absent")


def ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int | str | None, str]:
    """Run a command, and return its exit code and what it has printed."""
    monkeypatch.setattr("sys.argv", ["kaa-ext", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, capsys.readouterr().out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, capsys, "--version") == (0, f"{__version__}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The script knows commands, their commands, and options."""
    code, script = ended(monkeypatch, capsys, "completion", shell)
    assert not code
    for word in ("kaa-ext", "command", "send", "app-version"):
        assert word in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=60)


def test_help_shows_what_stands_in_angle_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "kaa.extension-instances.<name>.durable" in ended(monkeypatch, capsys, "run", "--help")[1]


def test_the_scaffold_says_how_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["kaa-ext", "new", "thermostat"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "kaa-gateway dev --allow thermostat" in capsys.readouterr().err
    assert "kaa-gateway dev --allow thermostat" in (tmp_path / "thermostat/README.md").read_text()


def imported(code: str, *names: str) -> list[str]:
    """Return which of these modules a new interpreter has imported after some code."""
    code += f"; import sys; print(*(name for name in {names} if name in sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return found.stdout.splitlines()[-1].split()


def test_help_imports_no_service_and_no_client() -> None:
    """That would take a second."""
    code = "from kaa_ext.cli.app import app; app(['--help'], result_action='return_value')"
    assert imported(code, "nats", "uvloop", "structlog", "kaa_ext.sdk") == []


def test_a_command_imports_what_it_needs() -> None:
    """Not what services need, which would take half a second; and aiohttp can be imported later."""
    names = ("nats", "aiohttp", "structlog", "rich.console", "prometheus_client", "kaa_ext.sdk.extension")
    work = "import kaa_ext.cli.command, kaa_ext.cli.nats_without_websocket, kaa_ext.operations.commands"
    assert imported(work, *names) == ["nats"]
    assert imported(f"{work}, aiohttp", "aiohttp") == ["aiohttp"]


def test_the_help_of_a_command_imports_no_client() -> None:
    assert imported("import kaa_ext.cli.command", "nats", "asyncio", "uvloop", "kaa_ext.operations") == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["new"],
        ["config", "set"],
        ["command", "send"],
        ["data", "query"],
        ["auth", "add"],
        ["auth", "expire"],
    ],
)
def test_help_teaches(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command has a sentence; those that people type have an example."""
    monkeypatch.setattr("sys.argv", ["kaa-ext", *arguments, "--help"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    text = capsys.readouterr().out
    assert "Usage: kaa-ext" in text
    assert not arguments or "Example: kaa-ext" in text
