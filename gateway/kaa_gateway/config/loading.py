"""Finding, reading and checking the configuration."""

from collections.abc import Mapping
from pathlib import Path

from kaa_gateway.config.cross_checks import cross_check
from kaa_gateway.config.keys import Document, ExtensionInstanceKeys
from kaa_gateway.config.model import AppVersion, Config, ExtensionInstance
from kaa_gateway.config.problems import Problem
from kaa_gateway.config.sources import PATH_VARIABLE, Sources
from kaa_gateway.errors import ConfigError

DEFAULT_PATH = Path("/srv/kpc/service-config.yml")
"""Where the configuration is if `APP_CONFIG_PATH` does not say otherwise."""


def config_path(environ: Mapping[str, str]) -> Path:
    """Return the file to load: what `APP_CONFIG_PATH` names, or `DEFAULT_PATH`."""
    return Path(environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Load the configuration from the file at `path` (None: no file) and the environment, which wins.

    Raises `ConfigError`, whose `detail` lists everything that is wrong, one line each.
    """
    config, problems = _read(path, environ)
    errors = [str(problem) for problem in problems if problem.severity == "error"]
    if config is None or errors:
        raise ConfigError("config_invalid", "\n".join(errors))
    return config


def check(path: Path | None, environ: Mapping[str, str]) -> list[Problem]:
    """Return everything that is wrong or doubtful in what `load` would read, in the order of the file's lines."""
    _, problems = _read(path, environ)
    return sorted(problems, key=lambda problem: problem.line or 0)


def _read(path: Path | None, environ: Mapping[str, str]) -> tuple[Config | None, list[Problem]]:
    sources = Sources()
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            return None, [Problem("", None, _unreadable(error, path, environ), "error", str(path))]
        sources.add_file(str(path), text, environ)
    sources.add_environment(environ)
    document = sources.document()
    cross_check(document, sources)
    warnings = tuple(str(problem) for problem in sources.problems if problem.severity == "warning")
    return _derive(document, warnings), sources.problems


def _unreadable(error: OSError | ValueError, path: Path, environ: Mapping[str, str]) -> str:
    if not isinstance(error, FileNotFoundError):
        return f"cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
    if environ.get(PATH_VARIABLE) and path == Path(environ[PATH_VARIABLE]):
        return f"no such file; {PATH_VARIABLE} names it"
    if path == DEFAULT_PATH:
        return f"no such file; set {PATH_VARIABLE} to the path of your service-config.yml"
    return "no such file"


def _derive(document: Document, warnings: tuple[str, ...]) -> Config:
    kaa, kpc = document.kaa, document.kaa.kpc
    app_versions = {
        name: AppVersion(
            name=name,
            application=application,
            tenant=keys.tenant,
            allowed=frozenset(version.allowed_extension_instances),
            quota=version.quota,
            endpoint_quota=version.endpoint_quota,
        )
        for application, keys in kaa.applications.items()
        for name, version in keys.versions.items()
    }
    undeclared = ExtensionInstanceKeys()
    allowed = {name: undeclared for version in app_versions.values() for name in sorted(version.allowed)}
    return Config(
        service=document.service,
        server=document.server,
        transports=kpc.transports,
        bridge=kpc.bridge,
        identity=kpc.identity,
        nats=kpc.nats,
        durable=kpc.durable,
        limits=kpc.limits,
        quotas=kpc.quotas,
        events=kpc.events,
        workers=kpc.workers,
        log=kpc.log,
        tracing=kpc.tracing,
        app_versions=app_versions,
        tenants={name: tenant.quota for name, tenant in kaa.tenants.items()},
        certificate_policies={name: tenant.certificates for name, tenant in kaa.tenants.items()},
        extension_instances={
            name: ExtensionInstance(
                name=name,
                endpoint_aware=keys.endpoint_aware,
                durable=keys.durable,
                named_configurations=keys.named_configurations,
            )
            for name, keys in (allowed | kaa.extension_instances).items()
        },
        warnings=warnings,
    )
