"""The routes of configurations (6/CDTP, 7/CMP)."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, get, put
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from kaa_ext.messages import cdtp
from kaa_ext.operations import configurations
from kaa_ext.rest.parameters import NAME, PREFIX, Endpoint, TypedBody, typed_body
from kaa_ext.rest.problems import about, responses, wrong
from kaa_ext.rest.services import Services
from kaa_ext.services import ecr

Version = Annotated[str, PathParameter(pattern=NAME, description="Application version of the endpoint.")]
ConfigurationName = Annotated[
    str | None,
    QueryParameter(
        pattern=NAME, name="name", description="Name of the configuration; the unnamed one without it."
    ),
]


class Configuration(msgspec.Struct, rename="camel"):
    """A configuration. `updatedAt` is a UNIX time in milliseconds.

    `config` is the JSON that devices get: of content that is not JSON, the text, or Base64.
    """

    config_id: str
    config: Any
    content_type: str
    updated_at: int


class AppliedConfiguration(msgspec.Struct, rename="camel"):
    """What an endpoint reported of a configuration. `timestamp` is a UNIX time in milliseconds."""

    config_id: str
    timestamp: int
    status_code: int
    reason_phrase: str | None


class ConfigurationStatus(msgspec.Struct, rename="camel"):
    """The status of a configuration; the name of the unnamed one is empty.

    `configId` is the current one. `applied` is the last report of the endpoint. `observe` is what the endpoint said of
    pushes.
    """

    name: str
    status: Literal["absent", "pending", "applied", "refused"]
    config_id: str | None
    applied: AppliedConfiguration | None
    observe: bool | None


class ConfigurationStatuses(msgspec.Struct):
    """The status of all configurations of an endpoint."""

    configurations: list[ConfigurationStatus]


class ConfigurationController(Controller):
    """The routes of configurations."""

    path = PREFIX
    tags = ("configurations",)

    @put(
        "/endpoints/{endpoint:str}/app-versions/{version:str}/configuration",
        operation_id="setConfiguration",
        summary="Set the configuration of an endpoint",
        description="The body is the configuration, of any type. It is pushed at once if the endpoint is connected. "
        "Devices get JSON as it is, text as a string, and all else as a string in Base64.",
        operation_class=TypedBody,
        response_description="The configuration is set.",
        responses=responses(413, 415),
    )
    async def set_configuration(
        self,
        request: Request[Any, Any, Any],
        services: NamedDependency[Services],
        endpoint: Endpoint,
        version: Version,
        name: ConfigurationName = None,
    ) -> Configuration:
        """Set a configuration."""
        content_type, content = await typed_body(request)
        if request.content_type[0] == cdtp.JSON:
            content_type = cdtp.JSON
        registry = await configurations.registry(services.session, services.instances.ecr)
        with about("body", ""):
            return _shown(
                await registry.set(version, endpoint, name or cdtp.DEFAULT_NAME, content, content_type)
            )

    @get(
        "/endpoints/{endpoint:str}/app-versions/{version:str}/configuration",
        operation_id="getConfiguration",
        summary="Show the configuration of an endpoint",
        response_description="The configuration.",
        responses=responses(404),
    )
    async def get_configuration(
        self,
        services: NamedDependency[Services],
        endpoint: Endpoint,
        version: Version,
        name: ConfigurationName = None,
    ) -> Configuration:
        """Show a configuration."""
        registry = await configurations.registry(services.session, services.instances.ecr)
        found = await registry.get(version, endpoint, name or cdtp.DEFAULT_NAME)
        if found is None:
            raise wrong("path", "endpoint", "The endpoint has no such configuration", 404)
        return _shown(found)

    @get(
        "/endpoints/{endpoint:str}/app-versions/{version:str}/configuration/status",
        operation_id="getConfigurationStatus",
        summary="Show which configurations an endpoint has applied",
        response_description="The unnamed configuration, and those that the endpoint has requested or got.",
        responses=responses(),
    )
    async def get_configuration_status(
        self, services: NamedDependency[Services], endpoint: Endpoint, version: Version
    ) -> ConfigurationStatuses:
        """Show the status of configurations."""
        names = services.instances
        found = await configurations.status(services.session, names.ecr, names.cmx, version, endpoint)
        return ConfigurationStatuses([_status(each) for each in found])


def _shown(configuration: ecr.Configuration) -> Configuration:
    return Configuration(
        configuration.config_id, configuration.content, configuration.content_type, configuration.updated_at
    )


def _status(status: configurations.Status) -> ConfigurationStatus:
    applied, current = status.configured.applied, status.current
    if current is None:
        outcome: Literal["absent", "pending", "applied", "refused"] = "absent"
    elif applied is None or not status.is_applied:
        outcome = "pending"
    else:
        outcome = "applied" if 200 <= applied.status_code <= 299 else "refused"
    report = (
        None
        if applied is None
        else AppliedConfiguration(
            applied.config_id, applied.timestamp, applied.status_code, applied.reason_phrase
        )
    )
    return ConfigurationStatus(
        status.name, outcome, current.config_id if current else None, report, status.configured.observe
    )
