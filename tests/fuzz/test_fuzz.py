"""The short run of what is fuzzed: the corpus, and mutations of good inputs, the same ones every time.

Where a decoder takes any bytes-like object, its input ends where a page without access begins: reading a single byte
too much ends the test run. The long run, guided by coverage, is `make fuzz`.
"""

import ctypes
import gc
import mmap
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.fuzz.decoders import DECODERS, check
from tests.fuzz.targets import INPUT_SIZE_MAX, SESSIONS, TARGETS, corpus, mutations

ITERATIONS = int(os.environ.get("ITERATIONS", "50000"))
"""Inputs for each decoder."""
PLAYS = max(ITERATIONS // 50, 100)
"""Inputs for each kind of session."""
SEED = int(os.environ.get("SEED", "1"))
BLOCKS_MAX = 200
"""Python objects by which a worker may differ after sessions: caches, which are warm by then."""


class GuardedMemory:
    """Memory behind whose last byte the next one must not be touched."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, INPUT_SIZE_MAX + mmap.PAGESIZE)
        self._view = memoryview(self._memory)
        libc = ctypes.CDLL(None, use_errno=True)
        guard = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + INPUT_SIZE_MAX
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_int(0)):
            raise OSError(ctypes.get_errno(), "mprotect")

    def holding(self, data: bytearray) -> memoryview:
        """The same bytes, with the guard behind them; until the next call."""
        view = self._view[INPUT_SIZE_MAX - len(data) : INPUT_SIZE_MAX]
        view[:] = data
        return view


@pytest.mark.parametrize("name", DECODERS)
def test_any_bytes(name: str) -> None:
    decoder = DECODERS[name]
    guarded = GuardedMemory()
    outcomes: dict[str, int] = {}
    for data in mutations(decoder.seeds, ITERATIONS, random.Random(f"{SEED} {name}")):
        taken: Any = guarded.holding(data) if decoder.takes_any_buffer else bytes(data)
        try:
            outcome, _ = check(decoder, taken)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} of {data.hex()}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    # The inputs reach beyond the first check, and most of the reasons.
    assert outcomes["a value"] > ITERATIONS // 20
    if decoder.errors:
        assert len(outcomes) > 2


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    """What has once been found is looked at for ever."""
    target = TARGETS[name]
    for data in [*target.seeds, *corpus(name)]:
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} of {data.hex()}") from error


@pytest.fixture
def quiet() -> Iterator[None]:
    """Drop what is logged: caches of the console's log would grow with each traceback."""

    def drop(*_: object) -> Any:
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = [*processors]
    processors[:] = [drop]  # in place, for loggers that are bound already
    yield
    processors[:] = before


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", SESSIONS)
def test_sessions_leave_nothing_behind(name: str) -> None:
    """Nothing in the worker's tables, and nothing in memory."""
    target = SESSIONS[name]
    before = 0
    for number, data in enumerate(mutations(target.seeds, PLAYS, random.Random(f"{SEED} {name}"))):
        if number == PLAYS // 2:
            gc.collect()
            before = sys.getallocatedblocks()
        try:
            target.run(bytes(data))
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} of {data.hex()}") from error
    gc.collect()
    assert sys.getallocatedblocks() - before < BLOCKS_MAX + RESUMABLE_BLOCKS.get(name, 0)


RESUMABLE_BLOCKS = {"DTLS session": 4 * PLAYS // 2}
"""Further blocks of sessions that are kept on purpose, as many as OpenSSL keeps, so that clients may resume them."""
