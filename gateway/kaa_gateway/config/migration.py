"""Says what would change if the gateway ran with a configuration of KPC. Nothing is started or changed.

docs/migrate-from-kpc.md has the table of KPC's settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kaa_gateway.config.cross_checks import cross_check
from kaa_gateway.config.keys import Document
from kaa_gateway.config.listeners import listener_ports
from kaa_gateway.config.manifests import read_manifest
from kaa_gateway.config.sources import UNKNOWN_KEYS_VARIABLE, Sources

IDENTITY = ("kaa", "kpc", "identity", "provider")
REPLICA_ID = ("service", "instance", "replica", "id")
NATS_VARIABLE = "NATS_URLS"


class DryRun(NamedTuple):
    """What a dry run has found, a sentence each."""

    errors: list[str]
    """Without a change of these the gateway does not start."""
    changes: list[str]
    kept: int
    """The number of settings that mean the same to the gateway."""

    def lines(self) -> Iterator[str]:
        """Yield the lines to print."""
        yield f"the same: {self.kept} settings"
        for change in self.changes:
            yield f"changes: {change}"
        for error in self.errors:
            yield f"must be changed: {error}"
        yield "the gateway does not start with this" if self.errors else "the gateway starts with this"


def dry_run(path: Path) -> DryRun:
    """Read a configuration of KPC. Raise ConfigError if there is none in the file."""
    manifest = read_manifest(path)
    sources = Sources()
    sources.add_file(manifest.name, manifest.text, {**manifest.environ, UNKNOWN_KEYS_VARIABLE: "warn"})
    sources.add_environment(manifest.environ)
    document = sources.document()
    cross_check(document, sources)
    errors = [str(problem) for problem in sources.problems if problem.severity == "error"]
    unknown = [problem for problem in sources.problems if problem.severity == "warning"]
    changes = [f"has no effect: {problem}" for problem in unknown]
    if manifest.environ.get(UNKNOWN_KEYS_VARIABLE) != "warn" and any(
        problem.message.startswith("unknown key") for problem in unknown
    ):
        errors.append(
            f"remove the keys without effect, or set {UNKNOWN_KEYS_VARIABLE}=warn: they stop the gateway"
        )
    changes += [
        f"the value of {name} stands elsewhere and was not looked at"
        for name in manifest.referred
        if name == NATS_VARIABLE or name.startswith(("KAA_", "SERVICE_", "SERVER_"))
    ]
    changes += _differences(document, sources)
    refused = {problem.path for problem in sources.problems if problem.severity == "error"}
    kept = sum(".".join(path) not in refused for path in sources.paths())
    return DryRun(errors, changes, kept)


def _differences(document: Document, sources: Sources) -> Iterator[str]:
    """Yield what the gateway does with this configuration and KPC does not."""
    transports = document.kaa.kpc.transports
    for listener in listener_ports(transports):
        enabled = (*listener.path[:-1], "enabled")
        if not sources.has(listener.path) and not sources.has(enabled):
            yield (
                f"port {listener.number} ({listener.below}) is opened, which the configuration does not mention; "
                f"{'.'.join(enabled)}: false keeps it closed"
            )
    if not sources.has(IDENTITY):
        yield (
            f"{'.'.join(IDENTITY)} is not set, so it is {document.kaa.kpc.identity.provider}; "
            "`ecap` asks the endpoint register of the cluster, as KPC does"
        )
    if sources.has(REPLICA_ID):
        yield f"{'.'.join(REPLICA_ID)} is set: two replicas with one ID take each other's answers"
    if not any(application.versions for application in document.kaa.applications.values()):
        yield "no application is configured, so every message of a device gets 404"
