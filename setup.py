"""Builds the native modules of the gateway; in place (`build_ext --inplace`), those of the bench too.

Everything else about the package is in pyproject.toml.
"""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

import native

setup(
    version=native.version(),
    ext_modules=native.modules(*(("gateway", "bench") if "--inplace" in sys.argv else ("gateway",))),
    package_dir={f"kaa_{each}": f"{each}/kaa_{each}" for each in ("gateway", "ext", "bench")},
    options=native.options(),
)
