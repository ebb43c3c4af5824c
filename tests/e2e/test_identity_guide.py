"""The commands of docs/identity.md on a demo platform with authentication."""

import re
from pathlib import Path

from tests.support.demo import demo
from tests.support.gateway import ROOT

ID = re.compile(r"[tcx]-[0-9a-f]{12}\b")


def commands() -> list[str]:
    """The indented `kaa-ext` commands that the page tells for the demo platform, without their remarks."""
    text = (
        (ROOT / "docs" / "identity.md")
        .read_text(encoding="utf-8")
        .partition("All commands of `kaa-ext auth`")[2]
    )
    return [
        line.partition("  #")[0].strip()
        for line in re.findall(r"^    (kaa-ext auth .*)$", text, re.MULTILINE)
    ]


async def test_the_commands_of_the_page(tmp_path: Path) -> None:
    found = commands()
    words = [command.split()[2] for command in found]
    at = words.index("list")
    assert words[:at] == ["add", "add-client", "add-certificate", "add-authority", "provision"]
    assert words[at + 1 :] == ["suspend", "revoke", "expire"]
    async with demo(tmp_path, "--auth") as platform:
        printed = [await platform.run(f".venv/bin/{command}") for command in found[: at + 1]]
        ids = [line.split()[0] for line in printed[at].splitlines() if ID.match(line)]
        assert len(ids) == 3, printed[at]
        # Each of them on another one, as what is revoked cannot expire.
        for command, each in zip(found[at + 1 :], ids, strict=True):
            assert " ID" in command
            await platform.run(".venv/bin/" + command.replace(" ID", f" {each}"))
        listed = await platform.run(".venv/bin/kaa-ext auth list")
        for state in ("suspended", "revoked"):
            assert state in listed.lower(), listed
