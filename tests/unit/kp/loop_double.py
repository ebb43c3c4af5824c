"""An event loop without time, for the native parts of a worker: a test says when something happens."""

import re
import select
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any


class Timer:
    """A call at a time."""

    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        self.at = at
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """What the native parts want of an event loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._soon: list[Callable[[], object]] = []
        self._later: list[Timer] = []
        self._readers: dict[int, Callable[[], object]] = {}

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self._soon.append(partial(callback, *arguments) if arguments else callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(self.now + delay, callback)
        self._later.append(timer)
        return timer

    def add_reader(self, descriptor: int, callback: Callable[..., object], *arguments: Any) -> None:
        self._readers[descriptor] = partial(callback, *arguments)

    def remove_reader(self, descriptor: int) -> None:
        del self._readers[descriptor]

    def add_writer(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Nobody lets a datagram socket fill up."""

    def remove_writer(self, descriptor: int) -> None:
        """There is none."""

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        raise context["exception"]

    def pass_time(self, seconds: float) -> None:
        """Put the clock forward, and call what is due by then."""
        self.now += seconds
        due = [timer for timer in self._later if timer.at <= self.now]
        self._later = [timer for timer in self._later if timer.at > self.now]
        for timer in due:
            if not timer.is_cancelled:
                timer.callback()
        self.run()

    def read(self) -> bool:
        """Call whose descriptors are ready; False if there is none."""
        poll = select.poll()
        for descriptor in self._readers:
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(0)
        for descriptor, _ in ready:
            self._readers[descriptor]()
        return bool(ready)

    def run(self) -> None:
        """Go on until nothing is left to do."""
        while self.read() or self._soon:
            while self._soon:
                self._soon.pop(0)()

    def turn(self) -> bool:
        """Call what is due now, once; False if nothing is."""
        due, self._soon = self._soon, []
        for callback in due:
            callback()
        return bool(due)

    def reads(self, descriptor: int) -> bool:
        """Whether one of the epoll sets that it watches waits for this descriptor to be readable."""
        return any(
            int(found[1], 16) & select.EPOLLIN
            for watched in self._readers
            for found in re.finditer(
                rf"tfd: +{descriptor} events: +([0-9a-f]+)", Path(f"/proc/self/fdinfo/{watched}").read_text()
            )
        )
