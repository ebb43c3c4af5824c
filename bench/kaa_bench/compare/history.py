"""The recorded instruction counts: an entry for each commit that was counted, in a file of the repository.

Counts of different compilers or interpreters cannot be compared, so an entry says what has built its modules, and a
count is compared with the last entry of the same build.
"""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kaa_bench.compare.instructions import Count, count_instructions
from kaa_bench.errors import BenchError

RISE_MAX = {"native": 0.03, "all": 0.12}
"""The part of a count by which it may rise without a reason.

All instructions of one build differ by up to 8 % between a quiet and a very busy machine.
"""


class Entry(msgspec.Struct, frozen=True):
    """The counts of a commit. `why` explains the rows that have risen since the entry before."""

    commit: str
    subject: str
    date: str
    built: str
    rows: dict[str, Count]
    why: str = ""


class Change(NamedTuple):
    """A count of a row beside the recorded one. `kind` is `native` or `all`."""

    row: str
    kind: str
    before: int
    now: int

    @property
    def part(self) -> float:
        """Return the change as a part of the count before; it is positive for a rise."""
        return self.now / self.before - 1

    @property
    def is_rise(self) -> bool:
        """Return whether the count has risen by more than is allowed."""
        return self.now > self.before * (1 + RISE_MAX[self.kind])

    def __str__(self) -> str:
        rise = f"{self.now:,} instructions a message instead of {self.before:,} ({self.part:+.1%})"
        return f"{self.row}, {self.kind}: {rise}"


def read_history(file: Path) -> list[Entry]:
    """Return the entries, the oldest first. Raise BenchError if the file is not there or not valid."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Entry])
    except FileNotFoundError:
        raise BenchError(f"{file} does not exist: run this at the top of a checkout") from None
    except msgspec.DecodeError as error:
        raise BenchError(f"{file}: {error}") from None


def write_history(file: Path, entries: list[Entry]) -> None:
    """Write the entries, one number a line, so that a change is a short diff."""
    documents: list[Any] = [msgspec.to_builtins(entry) for entry in entries]
    file.write_text(json.dumps(documents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def last_of(entries: list[Entry], built: str) -> Entry | None:
    """Return the last entry of a build, None if there is none."""
    return next((entry for entry in reversed(entries) if entry.built == built), None)


def changes(before: Mapping[str, Count], now: Mapping[str, Count]) -> list[Change]:
    """Return the counts of rows that both have, in the order of `now`."""
    return [
        Change(row, kind, getattr(before[row], kind), getattr(count, kind))
        for row, count in now.items()
        if row in before
        for kind in RISE_MAX
    ]


def risen(before: Mapping[str, Count], now: Mapping[str, Count]) -> list[Change]:
    """Return the counts that have risen by more than is allowed."""
    return [change for change in changes(before, now) if change.is_rise]


def lower(one: Mapping[str, Count], other: Mapping[str, Count]) -> dict[str, Count]:
    """Return the lower counts of two runs with the same rows."""
    return {
        row: Count(min(count.native, other[row].native), min(count.all, other[row].all))
        for row, count in one.items()
    }


def unexplained(entries: list[Entry]) -> list[tuple[Entry, Change]]:
    """Return the rises that an entry records without a reason."""
    found = []
    for number, entry in enumerate(entries):
        before = last_of(entries[:number], entry.built)
        if before is not None and not entry.why:
            found += [(entry, change) for change in risen(before.rows, entry.rows)]
    return found


def current_build() -> str:
    """Return what builds native modules here: processor, Python, Cython, C compiler, libc."""
    compiler = _output("cc", "-dumpfullversion").strip() or "unknown"
    parts = (
        platform.machine(),
        f"Python {platform.python_version()}",
        f"Cython {metadata.version('cython')}",
        f"cc {compiler}",
        " ".join(platform.libc_ver()),
    )
    return ", ".join(parts)


def compare_with_history(file: Path, *, record: bool, why: str, say: Callable[[str], None]) -> list[Change]:
    """Count, print each row beside its recorded count, and return what has risen. Record an entry if asked."""
    entries = read_history(file)
    built = current_build()
    before = last_of(entries, built)
    rows = count_instructions()
    if before is None:
        say(f"no counts of this build are recorded: {built}")
        for row, count in rows.items():
            say(f"{row}: {count.native:,} native instructions a message, {count.all:,} in all")
    else:
        say(f"beside {before.commit} of {before.date}, {before.subject}; {built}")
        for change in changes(before.rows, rows):
            say(str(change))
    up = risen(before.rows, rows) if before is not None else []
    for change in up:
        say(f"risen by more than {RISE_MAX[change.kind]:.0%}: {change.row}, {change.kind}")
    if not record:
        return up
    if up and not why:
        raise BenchError("these rows have risen: say --why, or find out")
    say("counting again: the lower count of each row is recorded")
    rows = lower(rows, count_instructions())
    entries.append(new_entry(rows, why))
    write_history(file, entries)
    return []


def new_entry(rows: dict[str, Count], why: str) -> Entry:
    """Return the entry of the commit that is checked out. Raise BenchError if the sources were changed since."""
    changed = _output("git", "status", "--porcelain", "--", "gateway", "native.py", "setup.py").strip()
    if changed:
        raise BenchError(f"commit these first, so that the counts belong to a commit:\n{changed}")
    commit, _, subject = _output("git", "log", "-1", "--format=%h %s").strip().partition(" ")
    if not commit:
        raise BenchError("git does not know this directory")
    return Entry(commit, subject, time.strftime("%Y-%m-%d"), current_build(), rows, why)


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
