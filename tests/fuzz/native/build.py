"""Builds the decoders and the program around them, apart from the modules of the tree.

There are two kinds of build: `fuzz`, with clang for libFuzzer and AddressSanitizer, and `coverage`, with gcc for gcov.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
FLAGS = {
    "fuzz": [
        "-O2",
        "-g",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,fuzzer-no-link",
        f"-fsanitize-coverage-allowlist={HERE / 'instrumented'}",
    ],
    "coverage": ["-O0", "-g", "--coverage"],
}


def build(kind: str) -> Path:
    """Build, and return the directory. Its `program` needs PYTHONPATH to be that directory."""
    work = ROOT / "build" / f"native-{kind}"
    shutil.rmtree(work, ignore_errors=True)
    copied = shutil.ignore_patterns("*.so", "__pycache__", "*.c")
    shutil.copytree(ROOT / "gateway/kaa_gateway", work / "kaa_gateway", ignore=copied)
    shutil.copy(HERE / "decoders.pyx", work)
    compiler = os.environ.get("CLANG", "clang") if kind == "fuzz" else "gcc"
    environment = os.environ | {"CC": compiler, "LDSHARED": f"{compiler} -shared"}
    environment["FLAGS"] = " ".join(FLAGS[kind])
    subprocess.run([sys.executable, "-P", str(HERE / "modules.py")], cwd=work, env=environment, check=True)
    library = sysconfig.get_config_var("LIBDIR")
    version = sysconfig.get_config_var("LDVERSION")
    harness = [
        compiler, "-O2", "-g", f"-I{sysconfig.get_path('include')}", str(HERE / "harness.c"), "-o", "program",
        *(["-fsanitize=address,fuzzer"] if kind == "fuzz" else ["-DREPLAY", "--coverage"]),
        f"-L{library}", f"-Wl,-rpath,{library}", f"-lpython{version}", "-rdynamic",
    ]  # fmt: skip
    subprocess.run(harness, cwd=work, check=True)
    return work
