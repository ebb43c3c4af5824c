"""Application versions of the configuration, in the form that routes and traffic reports need."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kaa_gateway.lifecycle.traffic import Owner

if TYPE_CHECKING:
    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import EndpointQuota, Quota


class Routing(NamedTuple):
    """The settings that routes are made from."""

    app_versions: dict[str, frozenset[str]]
    """The extension instances that each application version may use."""
    endpoint_aware: dict[str, bool]
    """By extension instance: whether the endpoint token is in its resource paths."""
    tenants: dict[str, str]
    """The tenant of each application version that has one."""
    named: frozenset[str]
    """The extension instances that get the configName of 4/ESP from the resource path."""


def routing_of(config: Config) -> Routing:
    """Return what the routes of a configuration are made from."""
    return Routing(
        {version.name: version.allowed for version in config.app_versions.values()},
        {instance.name: instance.endpoint_aware for instance in config.extension_instances.values()},
        {version.name: version.tenant for version in config.app_versions.values() if version.tenant},
        frozenset(
            instance.name for instance in config.extension_instances.values() if instance.named_configurations
        ),
    )


class QuotaSettings(NamedTuple):
    """The quotas of a configuration."""

    tenants: dict[str, Quota]
    app_versions: dict[str, Quota]
    endpoints: dict[str, EndpointQuota]
    """Those of each endpoint, by application version."""
    owners: dict[str, str]
    """The tenant of each application version that has one."""


def quotas_of(config: Config) -> QuotaSettings:
    """Return the quotas of tenants, application versions and endpoints."""
    versions = config.app_versions.values()
    return QuotaSettings(
        config.tenants,
        {version.name: version.quota for version in versions},
        {version.name: version.endpoint_quota for version in versions},
        {version.name: version.tenant for version in versions if version.tenant},
    )


def owners_of(config: Config) -> dict[str, Owner]:
    """Return tenant and application of each application version; the tenant of one that has none is empty."""
    return {
        name: Owner(version.tenant or "", version.application)
        for name, version in config.app_versions.items()
    }
