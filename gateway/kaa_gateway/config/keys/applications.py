"""The keys of `kaa.applications` and `kaa.extension-instances`."""

from typing import Annotated

from msgspec import Meta, field

from kaa_gateway.config.keys.quotas import EndpointQuota, Quota
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Boolean, LevelName, Names, OptionalLevelName


class ApplicationVersion(Section, frozen=True, kw_only=True):
    """One version of an application."""

    allowed_extension_instances: Annotated[
        Names, Meta(description="Extension instances that endpoints of this application version may use.")
    ] = ()
    quota: Quota = Quota()
    """Of all its endpoints together."""
    endpoint_quota: EndpointQuota = EndpointQuota()
    """Of each of its endpoints."""


class Application(Section, frozen=True, kw_only=True):
    """An application with its versions by name."""

    tenant: Annotated[
        OptionalLevelName, Meta(description="ID of the tenant that it belongs to; nothing is none.")
    ] = None
    versions: dict[LevelName, ApplicationVersion] = field(default_factory=dict)


class ExtensionInstanceKeys(Section, frozen=True, kw_only=True):
    """One extension service instance."""

    endpoint_aware: Annotated[
        Boolean,
        Meta(description="Whether an endpoint token follows the instance name in its resource paths."),
    ] = True
    durable: Annotated[
        Boolean,
        Meta(
            description="Whether what devices send to it is acknowledged only when a JetStream stream has "
            "stored it."
        ),
    ] = False
    named_configurations: Annotated[
        Boolean,
        Meta(
            description="Whether messages to it carry the name of a configuration: that in the paths "
            "`/config/json/<name>` and `/applied/json/<name>`."
        ),
    ] = False
