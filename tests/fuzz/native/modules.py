"""Compiles the decoders in the current directory; `build.py` starts it there. FLAGS has the flags of the compiler.

Lines of the C code are those of the .pyx files.
"""

import os
import re
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup  # type: ignore[import-untyped]

FLAGS = [*os.environ["FLAGS"].split(), "-Wno-unused-function", "-Wno-sign-compare"]
SECTION = re.compile(r"/\* #### Code section: \w+ ### \*/")
"""How the parts of what Cython writes begin."""
SOURCES = [*sorted(map(str, Path("kaa_gateway/wire").glob("*.pyx"))), "decoders.pyx"]

extensions = cythonize(  # type: ignore[no-untyped-call]
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
)
# What Cython adds behind a module's functions would count as further lines of its .pyx file.
for written in (Path(extension.sources[0]) for extension in extensions):
    code = written.read_text(encoding="utf-8")
    written.write_text(SECTION.sub(r'\g<0>\n#line 1 "cython"', code), encoding="utf-8")

setup(name="decoders", packages=[], ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])
