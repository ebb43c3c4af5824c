"""Standard output and standard error that never raise: text that cannot be written is dropped and counted.

The reader of a pipe may go away or stop reading, a disk may be full, and a descriptor may be closed from the start.
What a process logs then is lost; what it does goes on. Every program of ours calls `protect` before it logs.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Final

PENDING_MAX: Final = 65_536
"""Characters of an unfinished line that are kept; a longer one is written in parts."""
STALL_MS: Final = 100
"""Milliseconds that a line waits for a reader that does not read; later lines do not wait until it reads again."""


class LossyStream(io.TextIOBase):
    """A text stream that writes whole lines to a descriptor, and drops what cannot be written.

    With `wait`, it waits as long as a pipe is full; else it drops lines after STALL_MS.
    """

    def __init__(self, descriptor: int, *, wait: bool) -> None:
        self._descriptor = descriptor
        self._wait = wait
        self._pending = ""
        self._stalled = False
        self.lost = 0
        """Writes that were dropped, most of them one line each."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the text."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What happens to text that UTF-8 does not have."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether a terminal reads it."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Write text; what follows its last line break stays here until that is there too."""
        self._pending += text
        if "\n" in text or len(self._pending) > PENDING_MAX:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what is here. Never raises."""
        pending, self._pending = self._pending, ""
        if not pending:
            return
        data = memoryview(pending.encode("utf-8", "backslashreplace"))
        try:
            while data and self._writable():
                data = self._write_some(data)
        except OSError:
            pass
        self.lost += bool(data)

    def _write_some(self, data: memoryview) -> memoryview:
        """Write what fits, and return what is left."""
        try:
            return data[os.write(self._descriptor, data if self._wait else data[: select.PIPE_BUF]) :]
        except BlockingIOError:
            # Others may have made it non-blocking.
            return data

    def close(self) -> None:
        """Do nothing: the descriptor stays open until the process ends."""

    def _writable(self) -> bool:
        """Return whether a write can be tried; wait for that as long as may be."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        # A broken pipe counts as writable: the write tells.
        writable = bool(poll.poll(None if self._wait else 0 if self._stalled else STALL_MS))
        self._stalled = not writable
        return writable


def protect(*, stdout: bool = False) -> None:
    """Replace standard error, and with `stdout` standard output, by streams that never raise.

    Descriptors 0 to 2 that are closed are opened on /dev/null, so that no socket or file gets their numbers. A stream
    that somebody has replaced already stays.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    if sys.stderr is sys.__stderr__:
        sys.stderr = LossyStream(2, wait=False)
    if stdout and sys.stdout is sys.__stdout__:
        sys.stdout = LossyStream(1, wait=True)


def lost() -> int:
    """Return how many writes to standard error were dropped."""
    return sys.stderr.lost if isinstance(sys.stderr, LossyStream) else 0


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest free number is taken, which is this one: those below are open.
        os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, True)
