"""Commands in the documentation against the commands that there are: names, options and values are taken.

What they do is tried where they can run as they stand: tests/e2e/test_docs.py.
"""

import re
import shlex
from pathlib import Path

import kaa_bench.cli
import kaa_bench.sim.cli
import kaa_ext.cli.app
import kaa_gateway.commands
import pytest
from cyclopts import App, CycloptsError
from kaa_gateway.config import check

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "fuzz" / "README.md"])
APPS: dict[str, App] = {
    "kaa-gateway": kaa_gateway.commands.app,
    "kaa-ext": kaa_ext.cli.app.app,
    "kaa-bench": kaa_bench.cli.app,
    "kaa-sim": kaa_bench.sim.cli.app,
}
WRAPPERS = re.compile(r"^(?:sudo |nice |[A-Z_]+=\S+ )*(?:\S*/)?")
COMMAND = re.compile(rf"(?:{'|'.join(APPS)}|make)\b")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def commands(text: str) -> list[str]:
    """The commands of blocks and within lines that are ours, without what stands before and behind them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    lines += re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    lines += re.findall(
        r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )
    found = []
    for line in lines:
        for part in re.split(r"&&|\|(?!\|)|;", line):
            command = WRAPPERS.sub("", part.strip())
            if COMMAND.match(command):
                found.append(re.sub(r"\s(?:#.*|[<>]\s?\S+\.\S+|&)$", "", command))
    return found


def problem(command: str) -> str | None:
    """What is wrong with a command, or None."""
    name, *arguments = shlex.split(re.sub(r"<\w+>", "1", command))
    if name == "make":
        targets = {argument for argument in arguments if "=" not in argument}
        return None if targets <= TARGETS else f"no target {min(targets - TARGETS)}"
    if "--help" in arguments:
        return None
    try:
        APPS[name].parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return str(error)
    return None


def documented() -> list[tuple[str, str]]:
    return [
        (str(page.relative_to(ROOT)), command)
        for page in PAGES
        for command in dict.fromkeys(commands(page.read_text(encoding="utf-8")))
        if len(command.split()) > 1
    ]


@pytest.mark.parametrize(("page", "command"), documented())
def test_a_command_is_taken(page: str, command: str) -> None:
    # Named in passing, without what it needs: `kaa-ext run` is no less a command.
    found = problem(command)
    bare = len(command.split()) <= 3 and not command.count("--")
    assert found is None or (bare and "requires an argument" in found), f"{page}: {command}: {found}"


def configurations() -> list[tuple[str, str]]:
    """Blocks of YAML that are parts of a service-config.yml."""
    return [
        (str(page.relative_to(ROOT)), block)
        for page in PAGES
        for block in re.findall(
            r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        if re.match(r"(?:#.*\n)*(?:kaa|server|service)\b", block)
    ]


@pytest.mark.parametrize(("page", "block"), configurations())
def test_a_configuration_is_taken(tmp_path: Path, page: str, block: str) -> None:
    file = tmp_path / "service-config.yml"
    # Three dots stand for what is of no interest there.
    file.write_text(re.sub(r"(\s)\.\.\.(?=\s)", r"\1{}", block), encoding="utf-8")
    assert [str(found) for found in check(file, {}) if found.severity == "error"] == [], page
