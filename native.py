"""Compiler settings and the list of native modules, for the two setup.py files of this repository.

`KAA_BUILD` chooses the kind of build: `release`; `debug`, with bounds checks, assertions and C debug information
(`make test-debug`); `asan`, a debug build under AddressSanitizer and UndefinedBehaviorSanitizer of gcc
(`make test-asan`); `fuzz`, for libFuzzer, with clang (`make fuzz`); `none`, an installation without native modules,
for a checkout where they are built in place.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from setuptools import Extension

KIND = os.environ.get("KAA_BUILD", "release")
DEBUG = KIND != "release"
REPOSITORY = Path(__file__).resolve().parent

CHECKED = ["-O1", "-g", "-UNDEBUG"]
SANITIZED = [*CHECKED, "-fno-omit-frame-pointer"]
UNDEFINED = "-fsanitize=address,undefined"

COMPILE_ARGS = {
    "release": ["-O3", "-g0", "-fno-plt"],
    "debug": CHECKED,
    "asan": [*SANITIZED, UNDEFINED],
    # libFuzzer and AddressSanitizer themselves are in what `make fuzz` preloads.
    "fuzz": [*SANITIZED, "-fsanitize=address,fuzzer-no-link"],
}
LINK_ARGS = {"release": ["-Wl,--strip-debug"], "asan": [UNDEFINED]}

# Warnings about the C code that Cython writes.
QUIET = ["-Wno-unused-function", "-Wno-sign-compare"]


def version() -> str:
    """Return the version of both distributions, which stands in the package kaa_gateway."""
    text = (REPOSITORY / "gateway/kaa_gateway/__init__.py").read_text(encoding="utf-8")
    found = re.search('__version__ = "(.+)"', text)
    assert found is not None
    return found[1]


def options() -> dict[str, Any]:
    """Return the options of setuptools' commands: a build directory for each kind, and all processors."""
    return {
        "build": {"build_base": f"build/{KIND}"},
        "build_ext": {"parallel": os.cpu_count()},
    }


def modules(*roots: str) -> list[Extension]:
    """Return the native modules of the packages below `roots`, which are directories of this repository.

    Paths are relative to the current directory, as setuptools demands.
    """
    if KIND == "none":
        return []
    extensions = []
    for root in roots:
        for source in sorted((REPOSITORY / root).rglob("*.pyx")):
            name = ".".join(source.relative_to(REPOSITORY / root).with_suffix("").parts)
            extensions.append(
                Extension(
                    name,
                    [os.path.relpath(source)],
                    extra_compile_args=[*QUIET, *COMPILE_ARGS[KIND]],
                    extra_link_args=LINK_ARGS.get(KIND, []),
                    define_macros=[] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", "1")],
                )
            )
    return cythonize(  # type: ignore[no-any-return]
        extensions,
        include_path=[str(REPOSITORY / each) for each in ("gateway", "ext", "bench")],
        nthreads=os.cpu_count(),
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "embedsignature": True,
            # A class that is pickled says how; the methods that Cython would write are a third of most modules.
            "auto_pickle": False,
            "always_allow_keywords": True,
        },
        # A build of one kind must not use the C of the other: assertions and checks differ.
        build_dir="build/cython-debug" if DEBUG else "build/cython",
    )
