"""The reference of all configuration keys as a Markdown table, which docs/configuration.md contains.

`python -m kaa_gateway.config.reference` prints it. Everything in it comes from `kaa_gateway.config.keys`.
"""

import sys
from typing import NamedTuple

from kaa_gateway.config.keys import Document
from kaa_gateway.config.schema import Path, keys
from kaa_gateway.config.value_types import annotation
from kaa_gateway.config.values import expected, written

_PLACEHOLDERS = {
    "applications": "<application>",
    "versions": "<version>",
    "tenants": "<tenant>",
    "extension-instances": "<name>",
    "protocols": "<protocol>",
    "up": "<mapping>",
    "down": "<mapping>",
}


class KeyReference(NamedTuple):
    """What an operator needs to know of one key."""

    path: str
    expected: str
    default: str
    variable: str
    description: str


def _placeholder(path: Path) -> tuple[str]:
    return (_PLACEHOLDERS[path[-1]],)


def reference() -> list[KeyReference]:
    """Return every key, in the order of its declaration; names that the operator chooses are in angle brackets."""
    rows = []
    for key in keys(Document, _placeholder):
        path = ".".join(key.path)
        variable = key.variable
        if "<" in path:
            variable = "_".join(part if "<" in part else part.upper() for part in key.path).replace("-", "_")
        extra = annotation(key.hint, "extra") or {}
        default = extra.get("default") or written(key.hint, key.default)
        rows.append(
            KeyReference(path, expected(key.hint), default, variable, annotation(key.hint, "description"))
        )
    return rows


def table() -> str:
    """Return the reference as a Markdown table."""
    lines = ["| Key and variable | Value | Default | Meaning |", "|---|---|---|---|"]
    for row in reference():
        default = f"`{row.default}`" if row.default else "none"
        lines.append(f"| `{row.path}`<br>`{row.variable}` | {row.expected} | {default} | {row.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
