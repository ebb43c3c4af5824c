"""Measures which lines of a decoder the kept inputs reach, with gcov, and names those that none reaches.

Only functions that an input has entered count, by the lines of their .pyx or .pxd file.
"""

import bisect
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

DECODERS = "__pyx_f_11kaa_gateway_4wire_"
"""How Cython begins the names of functions of kaa_gateway.wire."""


class Coverage(NamedTuple):
    """How many lines there are and are reached, and those that are not: file, number and text."""

    lines: int
    reached: int
    missed: list[str]


def coverage(work: Path, decoder: str, inputs: Iterable[Path], environment: Mapping[str, str]) -> Coverage:
    """Return what `inputs` reach of a decoder in the build at `work`."""
    for counts in work.rglob("*.gcda"):
        counts.unlink()
    command = [str(work / "program"), *map(str, inputs)]
    subprocess.run(command, env={**environment, "DECODER": decoder}, cwd=work, check=True)
    counted: dict[tuple[str, int], int] = defaultdict(int)
    for counts in work.rglob("*.gcda"):
        listing = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(counts)], capture_output=True, cwd=work, check=True
        ).stdout
        for line in listing.splitlines():
            for file in json.loads(line)["files"]:
                if file["file"].endswith((".pyx", ".pxd")) and "decoders" not in file["file"]:
                    _add(file, counted)
    for place in [place for place in counted if not _is_statement(_text(work, *place))]:
        del counted[place]
    missed = [
        f"{file}:{number}: {_text(work, file, number)}"
        for (file, number), count in sorted(counted.items())
        if not count
    ]
    return Coverage(len(counted), len(counted) - len(missed), missed)


def _add(file: dict[str, Any], counted: dict[tuple[str, int], int]) -> None:
    """Add the lines of the functions of a file that were entered: from where one starts to the next one."""
    starts = sorted({function["start_line"] for function in file["functions"]})
    entered = {
        function["start_line"]
        for function in file["functions"]
        if function["execution_count"] and function["name"].startswith(DECODERS)
    }
    for line in file["lines"]:
        number = line["line_number"]
        place = bisect.bisect_right(starts, number)
        if place and starts[place - 1] in entered:
            counted[Path(file["file"]).name, number] += line["count"]


def _is_statement(text: str) -> bool:
    """Return whether a line does something; gcov also counts ends of functions and errors of calls on other lines."""
    return not text.startswith(("cdef ", ") ", '"""', "#")) and text != ""


def _text(work: Path, file: str, number: int) -> str:
    lines = (work / "kaa_gateway/wire" / file).read_text(encoding="utf-8").splitlines()
    return lines[number - 1].strip()
