"""The table of MQTT 5's normative statements in docs/mqtt5.md against the tests that it names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "conformance"
PAGE = ROOT / "docs" / "mqtt5.md"
ROW = re.compile(r"^\| MQTT-(\S+) \| (.+?) \| (.+) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py)::([\w:]+)`")
STATEMENT = re.compile(r"\[MQTT-([\d.]+-\d+)\]")

ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))


def docstrings(path: Path) -> dict[str, str]:
    """The docstring of each test of a module, those of a class as `TestClass::test_name`."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = [(node, "")]
        if isinstance(node, ast.ClassDef):
            inner = [(each, f"{node.name}::") for each in node.body]
        for each, prefix in inner:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                found[prefix + each.name] = ast.get_docstring(each) or ""
    return found


@pytest.mark.parametrize(("statement", "where"), [(row[0], row[2]) for row in ROWS])
def test_a_statement_is_tested_or_does_not_apply(statement: str, where: str) -> None:
    named = NAMED.findall(where)
    if not named:
        assert "`test_" not in where
        assert where.endswith((".", ")."))
    for path, name in named:
        tests = docstrings(TESTS / path)
        assert name in tests, f"{path} has no {name}"
        # Tests that are older than MQTT 5 here cite the sections of MQTT 3.1.1.
        assert not path.startswith("mqtt5/") or statement in STATEMENT.findall(tests[name])


def test_every_statement_has_one_row() -> None:
    statements = [row[0] for row in ROWS]
    assert len(statements) == len(set(statements))
    cited = {
        statement
        for path in (TESTS / "mqtt5").glob("test_*.py")
        for docstring in docstrings(path).values()
        for statement in STATEMENT.findall(docstring)
    }
    assert cited <= set(statements)
