"""Builds the native modules of the gateway and the SDK; in place (`build_ext --inplace`), those of the bench too.

`KAA_NATIVE="gateway ext"` leaves those of the bench out. Everything else about the package is in pyproject.toml.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

import native

ROOTS = os.environ.get(
    "KAA_NATIVE", "gateway ext bench" if "--inplace" in sys.argv else "gateway ext"
).split()

setup(
    version=native.version(),
    ext_modules=native.modules(*ROOTS),
    package_dir={f"kaa_{each}": f"{each}/kaa_{each}" for each in ("gateway", "ext", "bench")},
    options=native.options(),
)
