"""The configuration as the management API shows it: what is in effect, without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from kaa_gateway.config import masked

if TYPE_CHECKING:
    from kaa_gateway.config import Config

NOT_KPC = frozenset({"service", "server", "app_versions", "extension_instances", "warnings"})
"""Fields of a Config that are no keys below kaa.kpc."""


def shown(config: Config) -> dict[str, Any]:
    """Return a configuration arranged as in service-config.yml."""
    applications: dict[str, Any] = {}
    for version in config.app_versions.values():
        application = applications.setdefault(version.application, {"tenant": version.tenant, "versions": {}})
        application["versions"][version.name] = {"allowed-extension-instances": sorted(version.allowed)}
    kpc = {
        name.replace("_", "-"): getattr(config, name)
        for name in config.__struct_fields__
        if name not in NOT_KPC
    }
    document: dict[str, Any] = msgspec.to_builtins(
        {
            "service": config.service,
            "server": config.server,
            "kaa": {
                "applications": applications,
                "extension-instances": {
                    each.name: {
                        "endpoint-aware": each.endpoint_aware,
                        "durable": each.durable,
                        "named-configurations": each.named_configurations,
                    }
                    for each in config.extension_instances.values()
                },
                "kpc": kpc,
            },
        },
        enc_hook=str,
    )
    document["kaa"]["kpc"]["nats"]["urls"] = [masked(url) for url in config.nats.urls]
    document["kaa"]["kpc"]["bridge"]["url"] = masked(config.bridge.url)
    return document
