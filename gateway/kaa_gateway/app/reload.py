"""Reading the configuration again while the gateway runs, and applying what can be applied.

It is read when the file changes (a ConfigMap is a link to a directory that is replaced), at SIGHUP, and when the
cluster announces a change (17/SCMP). A configuration with an error is refused whole, and the old one stays. So is a
file that has become empty; one that is being written is read when it is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import structlog
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kaa_gateway.app.changes import applicable, differences
from kaa_gateway.config import Config
from kaa_gateway.errors import ConfigError
from kaa_gateway.files import complete, state_of

log = structlog.get_logger("gateway.reload")

WATCH_PERIOD = 2.0
"""Seconds between looks at the file. It may be on a mount that does not notify of changes."""
COMPLETE_AFTER = 2.0
"""Seconds for which a file must stay the same before it is read."""


class Reloader:
    """Keeps a gateway at the configuration of its file.

    `load` reads the file at `path`, and raises ConfigError if it is wrong. `apply` is called with each new
    configuration.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[], Config],
        config: Config,
        apply: Callable[[Config], Awaitable[None]],
    ) -> None:
        self._path = path
        self._load_file = load
        self._apply = apply
        self._wanted = asyncio.Event()
        self._cause = ""
        self._seen = state_of(path)
        self._tasks: list[asyncio.Task[None]] = []
        self.config = config
        self.results = {"applied": 0, "refused": 0, "unchanged": 0}
        """The number of times that it was read again, by result."""

    def start(self) -> None:
        """Begin to watch the file, and to read it when that is requested."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._run())]

    async def stop(self) -> None:
        """Stop reading the configuration."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def request(self, cause: str) -> None:
        """Read the configuration again soon; once for all requests that come meanwhile."""
        self._cause = cause
        self._wanted.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_PERIOD)
            if state_of(self._path) != self._seen:
                self.request("file")

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._read()
            except Exception:
                # The next one must be read all the same.
                log.exception("the configuration could not be applied")

    async def _read(self) -> None:
        cause = self._cause
        try:
            new = await self._load()
        except ConfigError as error:
            self.results["refused"] += 1
            for line in error.detail.splitlines():
                log.error("new configuration refused, the old one stays", cause=cause, problem=line)
            return
        for warning in new.warnings:
            log.warning("configuration", warning=warning)
        taken = applicable(self.config, new)
        if left := sorted(differences(taken, new)):
            log.warning("a restart is needed to apply the new values of some keys", cause=cause, keys=left)
        changed = sorted({*differences(self.config, taken)})
        if not changed:
            self.results["unchanged"] += 1
            log.info("configuration read again: nothing to apply", cause=cause)
            return
        if await asyncio.to_thread(_is_empty, self._path):
            self.results["refused"] += 1
            log.error(
                "new configuration refused, the old one stays", cause=cause, problem=f"{self._path}: is empty"
            )
            return
        self.config = taken
        await self._apply(taken)
        self.results["applied"] += 1
        log.info("new configuration", cause=cause, keys=changed)

    async def _load(self) -> Config:
        """Load the file when it is complete. Raises ConfigError."""
        while True:
            (self._seen,) = await complete([self._path], COMPLETE_AFTER)
            # What was requested meanwhile is done now.
            self._wanted.clear()
            loading = asyncio.gather(asyncio.to_thread(self._load_file), return_exceptions=True)
            (loaded,) = await loading
            if state_of(self._path) != self._seen:
                continue  # it has changed while it was read
            if isinstance(loaded, BaseException):
                raise loaded
            return loaded


class ReloadCollector(Collector):
    """The metric of the times that the configuration was read again, by result."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Read the counts now."""
        family = CounterMetricFamily(
            "kaa_gateway_config_reloads",
            "How often the configuration was read again, and what came of it.",
            labels=["result"],
        )
        for result, count in self._reloader.results.items():
            family.add_metric([result], count)
        yield family


def _is_empty(path: Path) -> bool:
    """Return whether a file says nothing, as one that is about to be written."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return all(line.strip() in ("", "---") or line.lstrip().startswith("#") for line in lines)
