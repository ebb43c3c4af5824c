"""Compiles the decoders in the current directory; `build.py` starts it there. FLAGS has the flags of the compiler.

Lines of the C code are those of the .pyx files.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup  # type: ignore[import-untyped]

FLAGS = [*os.environ["FLAGS"].split(), "-Wno-unused-function", "-Wno-sign-compare"]
SOURCES = [*sorted(map(str, Path("kaa_gateway/wire").glob("*.pyx"))), "decoders.pyx"]

setup(
    name="decoders",
    packages=[],
    ext_modules=cythonize(  # type: ignore[no-untyped-call]
        [
            Extension(
                source.removesuffix(".pyx").replace("/", "."),
                [source],
                extra_compile_args=FLAGS,
                extra_link_args=[flag for flag in FLAGS if flag == "--coverage"],
            )
            for source in SOURCES
        ],
        include_path=["."],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "auto_pickle": False,
        },
        emit_linenums=True,
        quiet=True,
    ),
    script_args=["--quiet", "build_ext", "--inplace"],
)
