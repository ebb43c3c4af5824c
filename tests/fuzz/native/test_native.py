"""The fuzzing of decoders without the interpreter in the loop: a short run of each."""

import os
import shutil
from pathlib import Path

import pytest

from tests.fuzz.native.__main__ import fuzz
from tests.fuzz.native.build import build
from tests.fuzz.native.seeds import SEEDS

CLANG = os.environ.get("CLANG", "clang")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(CLANG) is None, reason=f"{CLANG} is not installed"),
]


@pytest.fixture(scope="module")
def fuzzed() -> Path:
    return build("fuzz")


@pytest.mark.parametrize("decoder", SEEDS)
def test_a_decoder_reads_any_bytes(fuzzed: Path, decoder: str) -> None:
    code, executed = fuzz(fuzzed, decoder, seconds=60, runs=20_000)
    assert (code, executed >= 20_000) == (0, True)
