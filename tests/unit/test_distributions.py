"""The two distributions: each has the packages that its commands need."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "commands"),
    [("pyproject.toml", {"kaa-gateway", "kaa-ext"}), ("bench/pyproject.toml", {"kaa-bench", "kaa-sim"})],
)
def test_a_command_is_in_the_distribution_that_has_its_package(file: str, commands: set[str]) -> None:
    document = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))
    packages = {each.rstrip("*") for each in document["tool"]["setuptools"]["packages"]["find"]["include"]}
    scripts = document["project"]["scripts"]
    assert set(scripts) == commands
    for target in scripts.values():
        assert target.split(".")[0].split(":")[0] in packages
