"""A process whose standard streams are closed or full runs on and keeps its descriptors apart from theirs."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


SCRIPT = """
import os, sys
from kaa_gateway import logs, stdio
import structlog
stdio.protect(stdout=True)
logs.configure("info", "{style}")
print("out")
structlog.get_logger().warning("line", value=object())
import logging
logging.getLogger("library").error("%d", "no number")
logging.getLogger("library").error("fine")
os.write(int(os.environ["RESULT"]), b"done %d" % os.open("/dev/null", os.O_RDONLY))
"""


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("redirection", ["", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_process_logs_into_nothing(style: str, redirection: str, pipe: tuple[int, int]) -> None:
    """And what it opens next has none of the numbers of the standard streams."""
    script = SCRIPT.format(style=style)
    ended = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -P -c "$1" {redirection}', sys.executable, script],
        pass_fds=[pipe[1]],
        env={**os.environ, "RESULT": str(pipe[1])},
        timeout=60,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert ended.returncode == 0
    words = os.read(pipe[0], 100).split()
    assert words[0] == b"done"
    assert int(words[1]) > 2
