"""kaa-ext: what it says to a command line that it cannot run."""

import pytest

from ext import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no service named; known: dcx, echo, tsx"),
        (["run", "dxc"], "unknown service 'dxc'; known: dcx, echo, tsx"),
        (["run", "a=b"], "unknown service 'b'; known: dcx, echo, tsx"),
        (["run", "dcx", "dcx"], "two services are named 'dcx'"),
        (["run", "a.b=dcx"], "extension instance name 'a.b': expected"),
        (["run", "=dcx"], "extension instance name '': expected"),
        (["run", "dcx", "--nats", "http://u:secret@host"], "NATS URL http://***@host: expected"),
        (["run", "dcx", "--gateway-instance", "*"], "gateway instance name '*': expected"),
        (["run", "dcx", "--log-level", "loud"], "loud"),
        (["run", "dcx", "--nonsense"], "--nonsense"),
        (["walk"], "walk"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["kaa-ext", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("kaa-ext: ")
    assert output.err.count("\n") == 1
