"""`make fuzz`: the long run. Each target in turn under libFuzzer, in a process of its own, for a time.

What libFuzzer finds worth keeping goes to `.fuzz/<target>`, where the next run goes on; an input that breaks something
goes to `.fuzz/found`. `--keep` puts some of the small ones into the corpus in the tree, which the test suite plays.
"""

import argparse
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

# Nothing of ours is imported: the native modules want libFuzzer, which is in the processes that are started.
CORPUS = Path(__file__).parent / "corpus"
WORK = Path(".fuzz")
KEPT_MAX = 16
"""Inputs of a target in the tree."""
KEPT_SIZE_MAX = 512
"""Bytes of one of them."""
BROKEN = re.compile(r"==\d+==|\s*=== Uncaught")
"""How libFuzzer, AddressSanitizer and atheris begin to tell of what they have found."""
STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")
PROGRESS = re.compile(r"#\d+\s+\w+\s+cov: ")


def environment() -> dict[str, str]:
    """Of a process in which the native modules find libFuzzer and AddressSanitizer."""
    return {
        **os.environ,
        "LD_PRELOAD": f"{sysconfig.get_path('purelib')}/asan_with_fuzzer.so",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "PYTHONMALLOC": "malloc",
    }


def targets() -> list[str]:
    """What there is to fuzz."""
    listing = [sys.executable, "-m", "tests.fuzz.one"]
    return subprocess.run(
        listing, env=environment(), stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()


def fuzz(name: str, *options: str) -> tuple[int, dict[str, int]]:
    """Run one target: the exit code, and what libFuzzer counted."""
    directory = name.replace(" ", "-")
    for path in (WORK / directory, WORK / "found", CORPUS / directory):
        path.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "tests.fuzz.one", name, str(WORK / directory), str(CORPUS / directory),
        f"-artifact_prefix={WORK}/found/{directory}-", "-print_final_stats=1", "-timeout=60", "-rss_limit_mb=4096",
        "-max_len=4096", *options,
    ]  # fmt: skip
    counts = {}
    broken = False
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if statistic := STATISTIC.match(line):
                counts[statistic[1]] = int(statistic[2])
            elif broken := broken or BROKEN.match(line) is not None:
                print(line, end="")
            elif PROGRESS.match(line) and sys.stdout.isatty():
                print(f"\r{name}: {line.strip()[:100]:<100}", end="\r", flush=True)
    return process.returncode, counts


def keep(name: str) -> None:
    """Put some of what is kept into the tree, of all sizes up to the bound."""
    directory = name.replace(" ", "-")
    inputs = [path for path in (WORK / directory).iterdir() if path.stat().st_size <= KEPT_SIZE_MAX]
    inputs.sort(key=lambda path: (path.stat().st_size, path.name))
    (CORPUS / directory).mkdir(parents=True, exist_ok=True)
    for number in range(min(KEPT_MAX, len(inputs))):
        path = inputs[number * len(inputs) // min(KEPT_MAX, len(inputs))]
        (CORPUS / directory / path.name[:12]).write_bytes(path.read_bytes())


def main() -> int:
    """The exit code: 1 if something was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help="of those that it names at the start; all"
    )
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (60)")
    parser.add_argument(
        "--keep", action="store_true", help="put some small inputs into the corpus in the tree"
    )
    arguments = parser.parse_args()
    known = targets()
    if unknown := set(arguments.targets) - set(known):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    found = 0
    for name in arguments.targets or known:
        code, counts = fuzz(name, f"-max_total_time={arguments.seconds}")
        print(
            f"{name:16} {counts.get('number_of_executed_units', 0):>12,} inputs"
            f" {counts.get('new_units_added', 0):>8,} kept {counts.get('peak_rss_mb', 0):>6} MiB"
            f"  {'ok' if code == 0 else 'FOUND something: see above and .fuzz/found'}",
            flush=True,
        )
        found |= code != 0
        if arguments.keep and code == 0:
            keep(name)
    return found


if __name__ == "__main__":
    sys.exit(main())
