"""Configuration of the gateway: service-config.yml and the environment as one typed, checked structure.

What lives here: finding and loading the configuration, and what several keys must agree on. What does not:
the keys (`kaa_gateway.config.keys`), how a value is written (`kaa_gateway.config.values`), how file and environment
are read (`kaa_gateway.config.sources`). Reference for operators: docs/configuration.md.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct, field

from kaa_gateway.config.identity_keys import IdentitySettings
from kaa_gateway.config.keys import (
    Document,
    Durable,
    Events,
    ExtensionInstanceKeys,
    Limits,
    Log,
    Nats,
    Server,
    Service,
    Tracing,
    Transports,
)
from kaa_gateway.config.sources import PATH_VARIABLE, Problem, Sources
from kaa_gateway.config.tls_keys import CoapDtls, ServerTls
from kaa_gateway.config.values import masked
from kaa_gateway.errors import ConfigError

__all__ = [
    "AppVersion",
    "Config",
    "ExtensionInstance",
    "Problem",
    "check",
    "config_path",
    "encrypted",
    "load",
    "masked",
]

DEFAULT_PATH = Path("/srv/kpc/service-config.yml")
"""Where the configuration is if `APP_CONFIG_PATH` does not say otherwise."""

TRACING_EXTRA = "opentelemetry.exporter.otlp.proto.http"
"""What the extra `tracing` brings."""


class AppVersion(Struct, frozen=True, kw_only=True):
    """An application version and the extension instances that its endpoints may use."""

    name: str
    application: str
    tenant: str | None = None
    allowed: frozenset[str] = frozenset()


class ExtensionInstance(Struct, frozen=True, kw_only=True):
    """An extension service instance; endpoint-aware ones have the endpoint token in their resource paths."""

    name: str
    endpoint_aware: bool = True
    durable: bool = False


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration of one gateway; without arguments, the defaults."""

    service: Service = field(default_factory=Service)
    server: Server = Server()
    transports: Transports = Transports()
    identity: IdentitySettings = IdentitySettings()
    nats: Nats = Nats()
    durable: Durable = Durable()
    limits: Limits = Limits()
    events: Events = Events()
    workers: int = 1
    log: Log = Log()
    tracing: Tracing = Tracing()
    app_versions: dict[str, AppVersion] = field(default_factory=dict)
    """By application version name."""
    extension_instances: dict[str, ExtensionInstance] = field(default_factory=dict)
    """By name: all that are declared, and all that an application version is allowed to use."""
    warnings: tuple[str, ...] = ()
    """What the operator should know though the gateway starts; one line each, for the log."""


def config_path(environ: Mapping[str, str]) -> Path:
    """The file to load: what `APP_CONFIG_PATH` names, or `DEFAULT_PATH`."""
    return Path(environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of the file at `path` (None: no file) and the environment, which wins.

    Raises `ConfigError`, whose `detail` lists everything that is wrong, one line each.
    """
    config, problems = _read(path, environ)
    errors = [str(problem) for problem in problems if problem.severity == "error"]
    if config is None or errors:
        raise ConfigError("config_invalid", "\n".join(errors))
    return config


def check(path: Path | None, environ: Mapping[str, str]) -> list[Problem]:
    """Everything that is wrong or doubtful in what `load` would read, in the order of the file's lines."""
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
    _cross_check(document, sources)
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
        identity=kpc.identity,
        nats=kpc.nats,
        durable=kpc.durable,
        limits=kpc.limits,
        events=kpc.events,
        workers=kpc.workers,
        log=kpc.log,
        tracing=kpc.tracing,
        app_versions=app_versions,
        extension_instances={
            name: ExtensionInstance(name=name, endpoint_aware=keys.endpoint_aware, durable=keys.durable)
            for name, keys in (allowed | kaa.extension_instances).items()
        },
        warnings=warnings,
    )


# What several keys must agree on


def _cross_check(document: Document, sources: Sources) -> None:
    _check_applications(document, sources)
    _check_ports(document, sources)
    _check_tls(document, sources)
    kpc = document.kaa.kpc
    _check_identity(document, sources)
    if (kpc.nats.tls.cert_file is None) != (kpc.nats.tls.key_file is None):
        present, absent = ("cert-file", "key-file") if kpc.nats.tls.cert_file else ("key-file", "cert-file")
        path = ("kaa", "kpc", "nats", "tls", present)
        sources.report(path, f"needs kaa.kpc.nats.tls.{absent}, which is not set")
    if 0 < kpc.durable.max_age < kpc.durable.duplicate_window:
        sources.report(("kaa", "kpc", "durable", "duplicate-window"), "is more than kaa.kpc.durable.max-age")
    if kpc.tracing.enabled and not _is_installed(TRACING_EXTRA):
        message = "needs the extra `tracing`: pip install 'kaa-gateway[tracing]'"
        sources.report(("kaa", "kpc", "tracing", "enabled"), message)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _check_tls(document: Document, sources: Sources) -> None:
    """Which files an encrypted listener needs; what is in them is looked at by `kaa_gateway.net.certificates`."""
    transports = ("kaa", "kpc", "transports")
    for path, listener in encrypted(document.kaa.kpc.transports).items():
        here = (*transports, *path)
        key = ".".join(here)
        if not listener.enabled:
            continue
        with_psk = isinstance(listener, CoapDtls) and listener.psk_file is not None
        if listener.cert_file is None and not with_psk:
            psk = f" or {key}.psk-file" if isinstance(listener, CoapDtls) else ""
            sources.report((*here, "enabled"), f"needs {key}.cert-file{psk}, which is not set")
        if (listener.cert_file is None) != (listener.key_file is None):
            present, absent = ("cert-file", "key-file") if listener.cert_file else ("key-file", "cert-file")
            sources.report((*here, present), f"needs {key}.{absent}, which is not set")
        if listener.client_certificate != "off" and listener.ca_file is None:
            message = f"{listener.client_certificate} needs {key}.ca-file, which is not set"
            sources.report((*here, "client-certificate"), message)
        if listener.client_certificate == "off":
            for name, file in (("ca-file", listener.ca_file), ("crl-file", listener.crl_file)):
                if file is not None:
                    message = f"means nothing while {key}.client-certificate is off"
                    sources.report((*here, name), message, "warning")


def _check_identity(document: Document, sources: Sources) -> None:
    identity, path = document.kaa.kpc.identity, ("kaa", "kpc", "identity")
    if identity.static.file is None:
        for provider, where in (
            (identity.provider, (*path, "provider")),
            (identity.clients.provider, (*path, "clients", "provider")),
        ):
            if provider == "static":
                sources.report(where, "static needs kaa.kpc.identity.static.file, which is not set")
    transports = document.kaa.kpc.transports
    if identity.clients.provider == "none":
        for name, authentication in (
            ("mqtt", transports.mqtt.client_authentication),
            ("http", transports.http.client_authentication),
            ("coap.dtls", transports.coap.dtls.client_authentication),
        ):
            if authentication != "off":
                sources.report(
                    ("kaa", "kpc", "transports", *name.split("."), "client-authentication"),
                    f"{authentication} needs kaa.kpc.identity.clients.provider, which is none",
                )
    tenants = {application.tenant for application in document.kaa.applications.values()} - {None}
    if identity.clients.provider == "cap" and identity.clients.default_tenant is None and not tenants:
        sources.report(
            (*path, "clients", "provider"),
            "cap needs a tenant: kaa.applications.<application>.tenant or kaa.kpc.identity.clients.default-tenant",
        )


def _check_applications(document: Document, sources: Sources) -> None:
    first: dict[str, str] = {}
    for application, keys in document.kaa.applications.items():
        for name, version in keys.versions.items():
            path = ("kaa", "applications", application, "versions", name, "allowed-extension-instances")
            if first.setdefault(name, application) != application:
                sources.report(path[:-1], f'the application "{first[name]}" has a version of this name too')
            missing = [
                instance
                for instance in dict.fromkeys(version.allowed_extension_instances)
                if instance not in document.kaa.extension_instances
            ]
            if missing:
                message = "not declared in kaa.extension-instances, so taken as endpoint-aware: "
                sources.report(path, message + ", ".join(missing), "warning")


def encrypted(transports: Transports) -> dict[tuple[str, ...], ServerTls]:
    """The listeners that encrypt, enabled or not, by where their keys are below kaa.kpc.transports."""
    return {
        ("mqtt", "tls"): transports.mqtt.tls,
        ("mqtt", "websocket", "tls"): transports.mqtt.websocket.tls,
        ("http", "tls"): transports.http.tls,
        ("coap", "dtls"): transports.coap.dtls,
    }


def _listeners(document: Document) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Where the ports of the enabled listeners are set, of which protocol below they are, and their numbers."""
    transports = document.kaa.kpc.transports
    yield ("server", "port"), "tcp", document.server.port
    for path, listener in (
        (("mqtt", "tcp"), transports.mqtt.tcp),
        (("mqtt", "tls"), transports.mqtt.tls),
        (("mqtt", "websocket"), transports.mqtt.websocket),
        (("mqtt", "websocket", "tls"), transports.mqtt.websocket.tls),
        (("http",), transports.http),
        (("http", "tls"), transports.http.tls),
        (("coap",), transports.coap),
        (("coap", "dtls"), transports.coap.dtls),
        (("udp",), transports.udp),
    ):
        if listener.enabled:
            below = "udp" if path[0] in ("coap", "udp") else "tcp"
            yield ("kaa", "kpc", "transports", *path, "port"), below, listener.port


def _check_ports(document: Document, sources: Sources) -> None:
    first: dict[tuple[str, int], tuple[str, ...]] = {}
    for path, below, port in _listeners(document):
        if (other := first.setdefault((below, port), path)) != path:
            here, there = (path, other) if sources.has(path) else (other, path)
            sources.report(here, f"port {port} is that of {'.'.join(there)} too")
