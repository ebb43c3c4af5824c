"""The commands of docs/rest.md on a demo platform, and its table of operations against the API's document."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.demo import REST_PORT, blocks, commands, demo
from tests.support.gateway import ROOT

PAGE = "docs/rest.md"
STATUS = " -s -o answer -w '%{http_code}'"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_commands_of_the_page(tmp_path: Path) -> None:
    found = [line for block in blocks(PAGE, "sh") for line in commands(block) if line.startswith("curl")]
    assert len(found) == 7
    async with demo(tmp_path) as platform:
        statuses = [await platform.run(command + STATUS) for command in found]
        assert statuses == ["200", "200", "200", "200", "200", "202", "200"]
        (outstanding,) = json.loads((tmp_path / "answer").read_text())["commands"]
        assert (outstanding["type"], outstanding["payload"]) == ("blink", {"times": 3})
        document = json.loads(await platform.run(f"curl -s http://localhost:{REST_PORT}/openapi.json"))
    described = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            described.add((operation["operationId"], method.upper(), path.removeprefix("/api/v1")))
    assert described == table()


def table() -> set[tuple[str, str, str]]:
    """Return the operations in the table of the page: name, method, path."""
    found: set[tuple[str, str, str]] = set()
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for line in re.findall(r"^\| (`[a-z]+[A-Z].*)$", text, re.MULTILINE):
        names, requests, *_ = line.split(" | ")
        methods = re.findall("`([A-Z]+)(?: [^`]*)?`", requests)
        (path,) = re.findall("`[A-Z]+ ([^`]+)`", requests)
        found |= {
            (name, method, path) for name, method in zip(re.findall("`(\\w+)`", names), methods, strict=True)
        }
    return found
