"""`kaa-bench` and `kaa-sim`: versions and completions."""

import pytest
from cyclopts import App
from kaa_bench import cli
from kaa_bench.sim import cli as sim
from kaa_gateway import __version__


@pytest.mark.parametrize("app", [cli.app, sim.app])
def test_version(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    app(["--version"], result_action="return_value")
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(("app", "words"), [(cli.app, ("compare", "rounds")), (sim.app, ("load", "rate"))])
def test_completion(app: App, words: tuple[str, ...], shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    app(["completion", shell], result_action="return_value")
    script = capsys.readouterr().out
    for word in words:
        assert word in script
