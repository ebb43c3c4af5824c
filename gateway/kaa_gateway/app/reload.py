"""A configuration that changes while the gateway runs: read again, checked, and applied as far as that can be done.

It is read when the file changes (a ConfigMap is a link to a directory that is put in another's place), at SIGHUP, and
when the cluster says that it has changed (17/SCMP). One that is wrong is refused whole, and the old one stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path

import structlog
from msgspec import Struct
from msgspec.structs import fields, replace
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kaa_gateway.config import Config, load
from kaa_gateway.errors import ConfigError

log = structlog.get_logger("gateway.reload")

WATCH_PERIOD = 2.0
"""Seconds between looks at the file: it may be on a mount, which does not tell of changes."""

APPLIED = (
    "service.graceful-shutdown",
    "kaa.applications",
    "kaa.extension-instances",
    "kaa.kpc.limits.connections",
    "kaa.kpc.limits.endpoints-per-connection",
    "kaa.kpc.limits.route-cache",
    "kaa.kpc.limits.waiting-messages",
    "kaa.kpc.limits.waiting-bytes",
    "kaa.kpc.limits.pending-requests",
    "kaa.kpc.limits.output-buffer",
    "kaa.kpc.limits.input-memory",
    "kaa.kpc.limits.topic-length",
    "kaa.kpc.log.level",
)
"""Keys, with all below them, that a running gateway takes. All others need a restart, `durable` of an instance too."""

_SECTIONS = {
    "service": "service",
    "server": "server",
    "extension_instances": "kaa.extension-instances",
}
"""Where the parts of a Config stand in the file, if not under kaa.kpc."""


class Reloader:
    """Keeps a gateway at the configuration of its file and environment; `apply` is given each new one."""

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        config: Config,
        apply: Callable[[Config], Awaitable[None]],
    ) -> None:
        self._path = path
        self._environ = environ
        self._apply = apply
        self._wanted = asyncio.Event()
        self._cause = ""
        self._seen = _state_of(path)
        self._tasks: list[asyncio.Task[None]] = []
        self.config = config
        self.results = {"applied": 0, "refused": 0, "unchanged": 0}
        """How often it was read again, and what came of it."""

    def start(self) -> None:
        """Watch the file, and do what is requested."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._run())]

    async def stop(self) -> None:
        """Let the configuration be as it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def request(self, cause: str) -> None:
        """Read the configuration again, soon and once for all that ask meanwhile."""
        self._cause = cause
        self._wanted.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_PERIOD)
            state = _state_of(self._path)
            if state != self._seen:
                self.request("file")

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._read()
            except Exception:
                # The next one is to be read all the same.
                log.exception("the configuration could not be applied")

    async def _read(self) -> None:
        cause = self._cause
        # Before it is read: what is written meanwhile is seen as another change.
        self._seen = _state_of(self._path)
        try:
            new = await asyncio.to_thread(load, self._path, self._environ)
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
        changed = sorted(differences(self.config, taken))
        if not changed:
            self.results["unchanged"] += 1
            log.info("configuration read again: nothing to apply", cause=cause)
            return
        self.config = taken
        await self._apply(taken)
        self.results["applied"] += 1
        log.info("new configuration", cause=cause, keys=changed)


class ReloadCollector(Collector):
    """How often the configuration was read again, and what came of it."""

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


def applicable(old: Config, new: Config) -> Config:
    """The configuration `new` in the keys that a running gateway takes, and `old` in all others.

    An extension instance stays as durable as it is. One that is new and to be durable is left out, because a message to
    it would be acknowledged without being stored.
    """
    instances = {
        name: replace(
            instance, durable=name in old.extension_instances and old.extension_instances[name].durable
        )
        for name, instance in new.extension_instances.items()
        if name in old.extension_instances or not instance.durable
    }
    app_versions = {
        name: replace(version, allowed=frozenset(version.allowed & instances.keys()))
        for name, version in new.app_versions.items()
    }
    limits = {
        each.name: getattr(new.limits, each.name)
        for each in fields(new.limits)
        if f"kaa.kpc.limits.{each.encode_name}" in APPLIED
    }
    return replace(
        old,
        service=replace(old.service, graceful_shutdown=new.service.graceful_shutdown),
        limits=replace(old.limits, **limits),
        log=replace(old.log, level=new.log.level),
        app_versions=app_versions,
        extension_instances=instances,
        warnings=new.warnings,
    )


def differences(old: Config, new: Config) -> Iterator[str]:
    """The keys whose values are not the same; of application versions and extension instances the whole entries."""
    for name in old.app_versions.keys() | new.app_versions.keys():
        version = old.app_versions.get(name) or new.app_versions[name]
        if old.app_versions.get(name) != new.app_versions.get(name):
            yield f"kaa.applications.{version.application}.versions.{name}"
    for each in fields(old):
        if each.name not in ("app_versions", "warnings"):
            path = _SECTIONS.get(each.name, f"kaa.kpc.{each.name}")
            yield from _differences(path, getattr(old, each.name), getattr(new, each.name))


def _differences(path: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, Struct) and type(old) is type(new):
        for each in fields(old):
            name = each.encode_name.replace("_", "-")
            yield from _differences(f"{path}.{name}", getattr(old, each.name), getattr(new, each.name))
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name):
                yield f"{path}.{name}"
    elif old != new:
        yield path


def _state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file does, or when another takes its name; empty if there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
