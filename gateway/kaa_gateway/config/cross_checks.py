"""Checks of keys against each other."""

from importlib.util import find_spec

from kaa_gateway.config.keys import DatagramTls, Document, ServerTls
from kaa_gateway.config.listeners import ListenerPort, encrypted, listener_ports
from kaa_gateway.config.schema import Path
from kaa_gateway.config.sources import Sources
from kaa_gateway.counters import PLUGINS_MAX, PROTOCOL_NAMES

TRACING_EXTRA = "opentelemetry.exporter.otlp.proto.http"
"""A module of the extra `tracing`."""
BRIDGE_EXTRA = "aiomqtt"
"""A module of the extra `bridge`."""
TOPIC_ID_MAX = 65_534
"""The largest topic ID of MQTT-SN."""


def cross_check(document: Document, sources: Sources) -> None:
    """Report to `sources` where keys do not agree."""
    _check_applications(document, sources)
    _check_ports(document, sources)
    _check_tls(document, sources)
    kpc = document.kaa.kpc
    _check_identity(document, sources)
    _check_udp(document, sources)
    _check_coap(document, sources)
    _check_protocols(document, sources)
    _check_bridge(document, sources)
    _check_predefined_topics(document, sources)
    if (kpc.nats.tls.cert_file is None) != (kpc.nats.tls.key_file is None):
        present, absent = ("cert-file", "key-file") if kpc.nats.tls.cert_file else ("key-file", "cert-file")
        path = ("kaa", "kpc", "nats", "tls", present)
        sources.report(path, f"needs kaa.kpc.nats.tls.{absent}, which is not set")
    if 0 < kpc.durable.max_age < kpc.durable.duplicate_window:
        sources.report(("kaa", "kpc", "durable", "duplicate-window"), "is more than kaa.kpc.durable.max-age")
    if kpc.tracing.enabled and not _is_installed(TRACING_EXTRA):
        message = (
            "needs the extra `tracing`: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        )
        sources.report(("kaa", "kpc", "tracing", "enabled"), message)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _check_tls(document: Document, sources: Sources) -> None:
    """Check which files an encrypted listener has; `kaa_gateway.net.certificates` reads them."""
    transports = ("kaa", "kpc", "transports")
    for path, listener in encrypted(document.kaa.kpc.transports).items():
        here = (*transports, *path)
        key = ".".join(here)
        if not listener.enabled:
            continue
        with_psk = isinstance(listener, DatagramTls) and listener.psk_file is not None
        if listener.cert_file is None and not with_psk:
            psk = f" or {key}.psk-file" if isinstance(listener, DatagramTls) else ""
            sources.report((*here, "enabled"), f"needs {key}.cert-file{psk}, which is not set")
        if (listener.cert_file is None) != (listener.key_file is None):
            present, absent = ("cert-file", "key-file") if listener.cert_file else ("key-file", "cert-file")
            sources.report((*here, present), f"needs {key}.{absent}, which is not set")
        if listener.client_certificate != "off" and listener.ca_file is None and not listener.tenants:
            message = f"{listener.client_certificate} needs {key}.ca-file, which is not set"
            sources.report((*here, "client-certificate"), message)
        _check_tls_tenants(here, listener, document, sources)
        if listener.client_certificate == "off":
            for name, is_set in (
                ("ca-file", listener.ca_file is not None),
                ("crl-file", listener.crl_file is not None),
                ("tenants", bool(listener.tenants)),
            ):
                if is_set:
                    message = f"means nothing while {key}.client-certificate is off"
                    sources.report((*here, name), message, "warning")


def _check_tls_tenants(here: Path, listener: ServerTls, document: Document, sources: Sources) -> None:
    """Check the tenants of an encrypted listener."""
    known = {application.tenant for application in document.kaa.applications.values()}
    first: dict[str, str] = {}
    for name, tenant in listener.tenants.items():
        path = (*here, "tenants", name)
        if tenant.ca_file is None:
            sources.report(path, "needs a ca-file")
        if (tenant.cert_file is None) != (tenant.key_file is None):
            present, absent = ("cert-file", "key-file") if tenant.cert_file else ("key-file", "cert-file")
            sources.report((*path, present), f"needs {'.'.join(path)}.{absent}, which is not set")
        if tenant.cert_file is not None and not tenant.server_names:
            sources.report((*path, "cert-file"), "needs server-names, which are not set")
        if name not in known:
            sources.report(path, "no application has this tenant", "warning")
        for server_name in map(str.lower, tenant.server_names):
            if first.setdefault(server_name, name) != name:
                message = f"{server_name} is a server name of the tenant {first[server_name]} too"
                sources.report((*path, "server-names"), message)
    # OpenSSL looks at the lists of all authorities of a listener, or of none.
    files: dict[Path, tuple[object, object]] = {(): (listener.ca_file, listener.crl_file)}
    for name, tenant in listener.tenants.items():
        files["tenants", name] = (tenant.ca_file, tenant.crl_file)
    if any(crl_file is not None for _, crl_file in files.values()):
        for below, (ca_file, crl_file) in files.items():
            if listener.tenants and ca_file is not None and crl_file is None:
                message = "needs a crl-file, because other authorities of the listener have one"
                sources.report((*here, *below, "ca-file"), message)


def _check_udp(document: Document, sources: Sources) -> None:
    udp, here = document.kaa.kpc.transports.udp, ("kaa", "kpc", "transports", "udp")
    if udp.secure.enabled and udp.secure.psk_file is None:
        message = "needs kaa.kpc.transports.udp.secure.psk-file, which is not set"
        sources.report((*here, "secure", "enabled"), message)
    if not udp.enabled and not sources.has((*here, "enabled")):
        for path in list(sources.paths()):
            if path[:4] == here and (path[4] == "port" or not udp.secure.enabled) and path[4] != "secure":
                message = (
                    "means nothing: KP/UDP without encryption is off unless "
                    "kaa.kpc.transports.udp.enabled is true; kaa.kpc.transports.udp.secure is the encrypted one"
                )
                sources.report(path, message, "warning")


def _check_bridge(document: Document, sources: Sources) -> None:
    bridge, path = document.kaa.kpc.bridge, ("kaa", "kpc", "bridge")
    if bridge.enabled and not _is_installed(BRIDGE_EXTRA):
        sources.report((*path, "enabled"), "needs the extra `bridge`: pip install aiomqtt")
    if (bridge.cert_file is None) != (bridge.key_file is None):
        present, absent = ("cert-file", "key-file") if bridge.cert_file else ("key-file", "cert-file")
        sources.report((*path, present), f"needs kaa.kpc.bridge.{absent}, which is not set")


def _check_predefined_topics(document: Document, sources: Sources) -> None:
    path = ("kaa", "kpc", "transports", "mqtt-sn", "predefined-topics")
    numbers: set[int] = set()
    topics: set[str] = set()
    for entry in document.kaa.kpc.transports.mqtt_sn.predefined_topics:
        text, _, topic = entry.partition("=")
        number = int(text)
        if number > TOPIC_ID_MAX:
            sources.report(path, f"{number} is no topic ID: the largest is {TOPIC_ID_MAX}")
        if number in numbers:
            sources.report(path, f"the topic ID {number} is there twice")
        if topic in topics:
            sources.report(path, f"the topic {topic} is there twice")
        numbers.add(number)
        topics.add(topic)


def _check_coap(document: Document, sources: Sources) -> None:
    transports = document.kaa.kpc.transports
    if transports.coap.multicast_interfaces and transports.bind_address not in ("0.0.0.0", "::", "*"):
        sources.report(
            ("kaa", "kpc", "transports", "coap", "multicast-interfaces"),
            f"needs kaa.kpc.transports.bind-address 0.0.0.0, :: or *, which is {transports.bind_address}",
        )


def _check_protocols(document: Document, sources: Sources) -> None:
    protocols = document.kaa.kpc.transports.protocols
    here = ("kaa", "kpc", "transports", "protocols")
    versions = {name for each in document.kaa.applications.values() for name in each.versions}
    for number, (name, protocol) in enumerate(protocols.items(), 1):
        path = (*here, name)
        if name in PROTOCOL_NAMES:
            sources.report(path, "is the name of a protocol of the gateway itself")
        if number > PLUGINS_MAX:
            sources.report(path, f"there may be {PLUGINS_MAX} protocols")
        if protocol.enabled and not sources.has((*path, "port")):
            sources.report(path, "needs a port")
        if protocol.app_version is None:
            sources.report(path, "needs an app-version")
        elif protocol.app_version not in versions:
            sources.report((*path, "app-version"), "is not a version of an application in kaa.applications")
        wrong, right = ("dtls", "tls") if protocol.transport == "tcp" else ("tls", "dtls")
        if (protocol.dtls if wrong == "dtls" else protocol.tls).enabled:
            sources.report((*path, wrong, "enabled"), f"transport is {protocol.transport}, which has {right}")


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
            ("mqtt-sn.dtls", transports.mqtt_sn.dtls.client_authentication),
            ("coap.tls", transports.coap.tls.client_authentication),
            ("coap.websocket.tls", transports.coap.websocket.tls.client_authentication),
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

    tenants = {application.tenant for application in document.kaa.applications.values()}
    for name in document.kaa.tenants:
        if name not in tenants:
            message = "no application has this tenant, so its quota limits nothing"
            sources.report(("kaa", "tenants", name), message, "warning")


def _check_ports(document: Document, sources: Sources) -> None:
    first: dict[tuple[str, int], tuple[str, ...]] = {}
    management = ListenerPort(("server", "port"), "tcp", document.server.port)
    for path, below, port in (management, *listener_ports(document.kaa.kpc.transports)):
        if (other := first.setdefault((below, port), path)) != path:
            here, there = (path, other) if sources.has(path) else (other, path)
            sources.report(here, f"port {port} is that of {'.'.join(there)} too")
