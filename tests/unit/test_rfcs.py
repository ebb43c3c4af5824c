"""The table of RFCs in docs/rfcs.md against the tests that it names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "rfcs.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+)/[A-Z]+\b[^|]*\| ([^|]+) \| ([^|]*) ?\| ([^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"`((?:unit|e2e)/[\w/]+\.py)::([\w:]+)`")
RFCS = 27
"""RFCs that Kaa has published."""

ROWS = ROW.findall(PAGE)


def named_tests(path: Path) -> set[str]:
    """The tests of a module, those of a class as `TestClass::test_name`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = (
            [(each, f"{node.name}::") for each in node.body]
            if isinstance(node, ast.ClassDef)
            else [(node, "")]
        )
        for each, prefix in inner:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                found.add(prefix + each.name)
    return found


def test_every_rfc_has_one_row() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, RFCS + 1))


@pytest.mark.parametrize(("path", "name"), NAMED.findall(PAGE))
def test_a_named_test_exists(path: str, name: str) -> None:
    assert name in named_tests(ROOT / "tests" / path)


@pytest.mark.parametrize(("number", "part", "where", "left_out"), ROWS)
def test_an_rfc_is_tested_or_not_implemented(number: str, part: str, where: str, left_out: str) -> None:
    implemented = not left_out.startswith("Not implemented")
    assert bool(NAMED.findall(where)) == implemented, number
    assert part.startswith("None") == (not implemented), number
    assert "::" not in NAMED.sub("", where)
