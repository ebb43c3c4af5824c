"""The differences between two configurations, and which of them a running gateway can apply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import fields, replace

if TYPE_CHECKING:
    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import PluginProtocol

MQTT_SN_APPLIED = (
    "predefined_topics",
    "retry_timeout",
    "retries",
    "peers",
    "registered_topics",
    "topic_memory",
    "buffered_messages",
    "buffered_bytes",
    "max_message_size",
)

APPLIED = (
    "service.graceful-shutdown",
    "kaa.applications",
    "kaa.tenants",
    "kaa.extension-instances",
    "kaa.kpc.limits",
    "kaa.kpc.log.level",
    *(
        f"kaa.kpc.transports.protocols.<protocol>.{key}"
        for key in ("options", "app-version", "max-message-size", "login-timeout", "idle-timeout")
    ),
    *(f"kaa.kpc.transports.mqtt-sn.{key.replace('_', '-')}" for key in MQTT_SN_APPLIED),
)
"""Keys that a running gateway applies, with all below them. All others need a restart, and so does `durable`."""

_SECTIONS = {
    "service": "service",
    "server": "server",
    "extension_instances": "kaa.extension-instances",
    "tenants": "kaa.tenants",
    "certificate_policies": "kaa.tenants",
}
"""Where the parts of a Config stand in the file, if not under kaa.kpc."""


def applicable(old: Config, new: Config) -> Config:
    """Return `new` in the keys that a running gateway applies, and `old` in all others.

    `durable` of an extension instance stays as it is. A new instance that is to be durable is left out: messages to it
    would be acknowledged without being stored.
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
    protocols = {
        name: _applicable_protocol(protocol, new.transports.protocols.get(name, protocol))
        for name, protocol in old.transports.protocols.items()
    }
    mqtt_sn = replace(
        old.transports.mqtt_sn, **{key: getattr(new.transports.mqtt_sn, key) for key in MQTT_SN_APPLIED}
    )
    return replace(
        old,
        service=replace(old.service, graceful_shutdown=new.service.graceful_shutdown),
        limits=new.limits,
        transports=replace(old.transports, protocols=protocols, mqtt_sn=mqtt_sn),
        log=replace(old.log, level=new.log.level),
        app_versions=app_versions,
        tenants=new.tenants,
        certificate_policies=new.certificate_policies,
        extension_instances=instances,
        warnings=new.warnings,
    )


def _applicable_protocol(old: PluginProtocol, new: PluginProtocol) -> PluginProtocol:
    if new.protocol != old.protocol:
        return old
    return replace(
        old,
        options=new.options,
        app_version=new.app_version,
        max_message_size=new.max_message_size,
        login_timeout=new.login_timeout,
        idle_timeout=new.idle_timeout,
    )


def differences(old: Config, new: Config) -> Iterator[str]:
    """Yield the keys whose values differ; of application versions and extension instances the whole entries."""
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
