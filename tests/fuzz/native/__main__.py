"""`make fuzz-native`: gives inputs to each decoder without the interpreter in the loop, and prints what they reach.

Inputs that reach new code are kept in `.fuzz/native`, where the next run continues. An input that breaks something is
in `.fuzz/found`.
"""

import argparse
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.fuzz.native.build import ROOT, build
from tests.fuzz.native.coverage import coverage
from tests.fuzz.native.seeds import CORPORA, SEEDS, SIZES_MAX

KEPT = ROOT / ".fuzz" / "native"
FOUND = ROOT / ".fuzz" / "found"
EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


def environment(work: Path) -> dict[str, str]:
    """Return the environment in which the program of a build finds Python and its modules."""
    return {
        **os.environ,
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": f"{work}:{sysconfig.get_path('purelib')}",
        # Modules have variables of the same names.
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
    }


def fuzz(work: Path, decoder: str, seconds: int, runs: int) -> tuple[int, int]:
    """Run a decoder for a time or a number of inputs. Return the exit code, and the number of inputs."""
    kept = KEPT / decoder
    for path in (kept, FOUND):
        path.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[decoder]):
        (kept / f"seed-{number}").write_bytes(seed)
    command = [
        str(work / "program"), str(kept), *(str(path) for path in CORPORA[decoder]),
        f"-max_total_time={seconds}", f"-runs={runs}", f"-max_len={SIZES_MAX.get(decoder, 256)}",
        f"-artifact_prefix={FOUND}/native-{decoder}-", "-print_final_stats=1", "-rss_limit_mb=4096",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env=environment(work) | {"DECODER": decoder},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    executed = EXECUTED.search(done.stderr)
    if done.returncode:
        print(done.stderr[-4000:])
    return done.returncode, int(executed[1]) if executed else 0


def main() -> int:
    """Return the exit code: 1 if something was found."""
    parser = argparse.ArgumentParser(prog="make fuzz-native", description=__doc__)
    parser.add_argument("decoders", nargs="*", metavar="DECODER", help=f"of {', '.join(SEEDS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="time for each decoder (60)")
    parser.add_argument("--runs", type=int, default=100_000_000, help="inputs for each decoder (100,000,000)")
    parser.add_argument("--missed", action="store_true", help="print the lines that no input has reached")
    arguments = parser.parse_args()
    chosen = arguments.decoders or list(SEEDS)
    if unknown := set(chosen) - set(SEEDS):
        parser.error(f"no such decoder: {', '.join(sorted(unknown))}")
    fuzzed, measured = build("fuzz"), build("coverage")
    found = 0
    for decoder in chosen:
        code, executed = fuzz(fuzzed, decoder, arguments.seconds, arguments.runs)
        inputs = [path for folder in (KEPT / decoder, *CORPORA[decoder]) for path in folder.iterdir()]
        reached = coverage(measured, decoder, inputs, environment(measured))
        print(
            f"{decoder:16} {executed:>12,} inputs  {reached.reached:>4} of {reached.lines:>4} lines reached"
            f"  {'ok' if code == 0 else 'FOUND something: see above and .fuzz/found'}",
            flush=True,
        )
        if arguments.missed:
            print("".join(f"    {line}\n" for line in reached.missed), end="")
        found |= code != 0
    return found


if __name__ == "__main__":
    sys.exit(main())
