"""Standard streams that never raise: broken, full, stalled and closed ones."""

import contextlib
import os
import select
import time
from collections.abc import Iterator

import pytest
from kaa_gateway.stdio import STALL_MS, LossyStream


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_lines_are_written_whole(pipe: tuple[int, int]) -> None:
    stream = LossyStream(pipe[1], wait=False)
    stream.write("a")
    assert not select.select([pipe[0]], [], [], 0)[0]
    stream.write("b\u00fc\ud800\n")
    assert os.read(pipe[0], 100) == b"ab\xc3\xbc\\ud800\n"
    print("c", file=stream)
    assert os.read(pipe[0], 100) == b"c\n"
    stream.write("no end")
    stream.flush()
    assert os.read(pipe[0], 100) == b"no end"
    assert stream.lost == 0


def test_a_line_longer_than_a_pipe_takes_at_once_is_whole(pipe: tuple[int, int]) -> None:
    stream = LossyStream(pipe[1], wait=False)
    print("x" * 3 * select.PIPE_BUF, file=stream)
    assert os.read(pipe[0], 1 << 20) == b"x" * 3 * select.PIPE_BUF + b"\n"


@pytest.mark.parametrize("wait", [False, True])
def test_a_broken_pipe_costs_lines(pipe: tuple[int, int], wait: bool) -> None:
    stream = LossyStream(pipe[1], wait=wait)
    os.close(pipe[0])
    for _ in range(3):
        print("lost", file=stream, flush=True)
    assert stream.lost == 3


@pytest.mark.parametrize("wait", [False, True])
def test_a_full_disk_costs_lines(wait: bool) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = LossyStream(descriptor, wait=wait)
    print("lost", file=stream)
    os.close(descriptor)
    print("closed", file=stream)
    assert stream.lost == 2


def test_a_reader_that_reads_nothing_costs_one_wait(pipe: tuple[int, int]) -> None:
    stream = LossyStream(pipe[1], wait=False)
    os.set_blocking(pipe[1], False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe[1], b"x" * select.PIPE_BUF)
    os.set_blocking(pipe[1], True)
    before = time.monotonic()
    for _ in range(1000):
        print("lost", file=stream)
    assert time.monotonic() - before < 5 * STALL_MS / 1000 + 1
    assert stream.lost == 1000
    while len(os.read(pipe[0], 1 << 20)) == 1 << 20:
        pass
    print("again", file=stream)
    assert os.read(pipe[0], 100) == b"again\n"
