"""The locked versions of the image: whole, hashed, and within the ranges of pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "deploy" / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def locked(name: str) -> dict[str, tuple[str, int]]:
    """The version of each package in a lock file, and how many hashes it has."""
    text = (LOCKS / name).read_text(encoding="utf-8").replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        package, version = re.match(r"([\w.-]+)==([\w.]+)", line).groups()  # type: ignore[union-attr]
        found[canonicalize_name(package)] = version, line.count("--hash=sha256:")
    return found


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        (
            "run.txt",
            [
                *PROJECT["project"]["dependencies"],
                *PROJECT["project"]["optional-dependencies"]["rest"],
                *PROJECT["project"]["optional-dependencies"]["tracing"],
            ],
        ),
        ("build.txt", PROJECT["build-system"]["requires"]),
    ],
)
def test_each_dependency_is_locked_within_its_range(lock: str, requirements: list[str]) -> None:
    versions = locked(lock)
    for each in map(Requirement, requirements):
        version, _ = versions[canonicalize_name(each.name)]
        assert each.specifier.contains(version), f"{each}: {version} in {lock}; run `make lock`"


@pytest.mark.parametrize("lock", ["run.txt", "build.txt"])
def test_each_locked_version_has_hashes_and_no_address(lock: str) -> None:
    assert all(hashes for _, hashes in locked(lock).values())
    assert "://" not in (LOCKS / lock).read_text(encoding="utf-8")


def test_what_building_needs_is_said_once_more_in_the_input_of_its_lock() -> None:
    lines = (LOCKS / "build.in").read_text(encoding="utf-8").splitlines()
    assert sorted(line for line in lines if not line.startswith("#")) == sorted(
        PROJECT["build-system"]["requires"]
    )
