"""Runs a server under valgrind's callgrind, and counts its instructions while it works."""

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from kaa_bench.errors import BenchError
from kaa_bench.processes import START_TIMEOUT_S, Server

FUNCTION_LINE = re.compile(r"^\s*([\d,]+)(?: \([^)]*\))?\s+(\S+?):(\S.*?)(?: \[(.+)\])?$")
"""A line of callgrind_annotate: instructions, file, function, object."""


class Callgrind:
    """The instructions of a server that is started after this is made. They are counted only within `count`.

    With `children` they are those of the processes that it returns: descendants of the server.
    """

    def __init__(self, server: Server, children: Callable[[], Sequence[int]] | None = None) -> None:
        out = f"--callgrind-out-file={server.directory / 'callgrind.out.%p'}"
        server.under = ["valgrind", "--tool=callgrind", "--instr-atstart=no", out]
        if children is not None:
            server.under.append("--trace-children=yes")
        self._processes = children or (lambda: [server.pid])
        server.start_timeout = 10 * START_TIMEOUT_S  # valgrind is slow
        self._server = server

    def count(self, work: Callable[[], int]) -> tuple[int, Counter[tuple[str, str]]]:
        """Return the number of messages, and the instructions by object and function, while `work` sends messages."""
        for earlier in self._server.directory.glob("callgrind.out*"):
            earlier.unlink()
        self._control("--instr=on")
        messages = work()
        self._control("--instr=off")
        self._control("--dump")
        counts: Counter[tuple[str, str]] = Counter()
        for dump in self._server.directory.glob("callgrind.out*"):
            if dump.stat().st_size:
                counts += read_annotation(_output("callgrind_annotate", "--threshold=100", str(dump)))
        return messages, counts

    def _control(self, option: str) -> None:
        _output("callgrind_control", option, *map(str, self._processes()))


def read_annotation(text: str) -> Counter[tuple[str, str]]:
    """Return the instructions by (object, function) in the output of callgrind_annotate."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        found = FUNCTION_LINE.match(line)
        if found is not None:
            module = Path(found[4] or "unknown").name.partition(".")[0]
            counts[module, found[3].partition("'")[0]] += int(found[1].replace(",", ""))
    return counts


def _output(*command: str) -> str:
    with suppress(FileNotFoundError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        raise BenchError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
    raise BenchError(f"{command[0]} is not installed: apt-get install valgrind")
