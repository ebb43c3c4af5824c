"""Counts the lines of native functions that use Python's C API, from Cython's annotation.

`make annotate` prints them for the modules of the per-message path. They show where an object, a reference or a call of
the interpreter is left; the cost of a line is measured by profiling.py. docs/performance.md has results.
"""

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from Cython.Compiler.Main import compile_single
from Cython.Compiler.Options import CompilationOptions, default_options

from kaa_bench.errors import BenchError

HOT = (
    "gateway/kaa_gateway/wire/mqtt.pyx", "gateway/kaa_gateway/wire/mqtt_fields.pyx",
    "gateway/kaa_gateway/wire/esp.pyx", "gateway/kaa_gateway/wire/nats.pyx",
    "gateway/kaa_gateway/kp/correlation.pyx", "gateway/kaa_gateway/kp/uplink.pyx",
    "gateway/kaa_gateway/kp/downlink.pyx", "gateway/kaa_gateway/net/tcp_connection.pyx",
    "gateway/kaa_gateway/net/tcp_listener.pyx", "gateway/kaa_gateway/mqtt/connection.pyx",
    "gateway/kaa_gateway/mqtt/session.pyx", "gateway/kaa_gateway/mqtt/subscriptions.pyx",
    "gateway/kaa_gateway/mqtt/received.pyx", "gateway/kaa_gateway/mqtt/outgoing.pyx",
    "gateway/kaa_gateway/bus/link.pyx",
)  # fmt: skip
"""The modules that every MQTT message goes through."""
DIRECTIVES = {"boundscheck": False, "wraparound": False, "initializedcheck": False, "cdivision": True}
"""The compiler directives of a release build (setup.py)."""
LINE = re.compile(r'<pre class="cython line score-(\d+)"[^>]*>\+?<span class="">(\d+)</span>')
FUNCTION = re.compile(r"\s*(?:cp?def|def)\b[^=]*?(\w+)\(")
CLASS = re.compile(r"cdef class (\w+)")


def annotated(source: Path) -> Counter[str]:
    """Return for each function how many of its lines use Python's C API, also if none does."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "module.c"
        options = CompilationOptions(  # type: ignore[no-untyped-call]
            default_options,
            language_level=3,
            annotate="default",
            output_file=str(out),
            compiler_directives=dict(DIRECTIVES),
        )
        if compile_single(str(source), options, None).num_errors:  # type: ignore[no-untyped-call]
            raise BenchError(f"Cython cannot compile {source}")
        page = out.with_suffix(".html").read_text()
    marked = {int(number) for score, number in LINE.findall(page) if int(score)}
    counts: Counter[str] = Counter()
    name = owner = ""
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if found := CLASS.match(line):
            owner, name = found[1], ""
        elif found := FUNCTION.match(line):
            name = f"{owner}.{found[1]}" if line.startswith(" ") else found[1]
            counts[name] += 0
            continue  # a def line stands for the call from Python
        if name and number in marked:
            counts[name] += 1
    return counts


def main(paths: Sequence[str]) -> None:
    """Print the functions of some modules, by the number of such lines."""
    for path in paths or HOT:
        counts = annotated(Path(path))
        clean = sum(not count for count in counts.values())
        print(f"\n{path}: {clean} of {len(counts)} functions without Python")
        for name, count in counts.most_common():
            if count:
                print(f"  {count:4}  {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
