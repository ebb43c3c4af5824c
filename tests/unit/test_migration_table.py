"""docs/migrate-from-kpc.md: each test that its table names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:unit|e2e|conformance|security)/[\w/]+\.py)(?:::(\w+))?`")


def test_each_test_of_the_table_exists() -> None:
    text = (ROOT / "docs/migrate-from-kpc.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "/test_" in line]
    assert len(rows) == 33
    for row in rows:
        for file, name in NAMED.findall(row):
            tests = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name or 'test_'}" in tests, (file, name)
        assert NAMED.search(row), row
