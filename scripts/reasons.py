"""Writes the explanations of docs/reasons.md into the package, where the live page finds them: `make reasons`."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "docs" / "reasons.md"
TARGET = ROOT / "gateway" / "kaa_gateway" / "admin" / "reasons.json"
ROW = re.compile(r"\| (?P<reasons>`[^|]*) \| (?P<meaning>[^|]*) \| (?P<action>[^|]*)\|")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def explanations(text: str) -> dict[str, dict[str, str]]:
    """Return what the tables of the page say, by reason: "meaning" and "action". Links become their text."""
    found = {}
    for line in text.splitlines():
        if row := ROW.match(line):
            meaning, action = (LINK.sub(r"\1", row[name]).strip() for name in ("meaning", "action"))
            for reason in re.findall(r"`(\w+)`", row["reasons"]):
                found[reason] = {"meaning": meaning, "action": action}
    return found


def document() -> str:
    """Return the text of the file in the package."""
    return json.dumps(explanations(SOURCE.read_text(encoding="utf-8")), indent=0, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
