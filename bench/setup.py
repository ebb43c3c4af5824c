"""Builds the native modules of the bench. They use the declarations (.pxd) of the gateway in this repository."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parents[1]))

import native

setup(version=native.version(), ext_modules=native.modules("bench"), options=native.options())
