"""Puts the REST API together: routes, description, demo page, access, bounds, observation."""

from typing import TYPE_CHECKING, Any

from kaa_gateway import __version__
from kaa_gateway.access import BearerToken
from litestar import Litestar, Response, get
from litestar.datastructures import MutableScopeHeaders
from litestar.di import NamedDependency, Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme, Tag
from litestar.routes import HTTPRoute

from kaa_ext.rest.access import Access
from kaa_ext.rest.bounds import BODY_SIZE_MAX, Bounds
from kaa_ext.rest.commands import CommandController
from kaa_ext.rest.configurations import ConfigurationController
from kaa_ext.rest.demo import demo_page
from kaa_ext.rest.description import Description
from kaa_ext.rest.metadata import MetadataController
from kaa_ext.rest.observation import Metrics, Observation
from kaa_ext.rest.problems import HANDLERS
from kaa_ext.rest.samples import SampleController
from kaa_ext.rest.services import Services
from kaa_ext.rest.time_series import TimeSeriesController
from kaa_ext.rest.tokens import TokenController

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message

DESCRIPTION = """\
The reference services of the Kaa device gateway, for people and programs: commands, configurations, metadata, \
data samples, endpoint tokens. Errors are problem details (RFC 9457); `errors` names the fields that are wrong. \
All times are UNIX times in milliseconds."""
TAGS = {
    "commands": "Commands to endpoints (11/CEP, 12/CIP).",
    "configurations": "Configurations of endpoints (6/CDTP, 7/CMP).",
    "metadata": "Metadata of endpoints (10/EPMP).",
    "time series": "Data samples of endpoints (2/DCP), and the time series in them (14/TSTP).",
    "endpoint tokens": "Tokens of the reference authentication provider (16/ECAP).",
}


def application(
    services: Services, token: BearerToken | None, metrics: Metrics, *, access_log: bool = False
) -> "ASGIApp":
    """Return the REST API of services as an ASGI application. Its requests are counted in `metrics`."""
    controllers = [
        CommandController,
        ConfigurationController,
        MetadataController,
        SampleController,
        TimeSeriesController,
        TokenController,
    ]
    app = Litestar(
        [*controllers, _live, _ready, demo_page],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        exception_handlers=HANDLERS,
        request_max_body_size=BODY_SIZE_MAX,
        openapi_config=_description(guarded=token is not None),
        before_send=[_correct_allow],
        logging_config=None,
    )
    return Observation(Bounds(Access(app, token)), metrics, access_log=access_log)


async def _correct_allow(message: "Message", scope: Any) -> None:
    """Correct the methods in the answer to OPTIONS: Litestar names those of one of the handlers of a path."""
    if scope["method"] == "OPTIONS" and message["type"] == "http.response.start":
        for route in Litestar.from_scope(scope).routes:
            if isinstance(route, HTTPRoute) and route.path_format == scope["path_template"]:
                MutableScopeHeaders.from_message(message)["Allow"] = ", ".join(sorted(route.methods))


def _description(*, guarded: bool) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Kaa reference services",
        version=__version__,
        description=DESCRIPTION,
        license=License("Apache-2.0", identifier="Apache-2.0"),
        components=Components(security_schemes={"token": SecurityScheme("http", scheme="bearer")}),
        security=[{"token": []}] if guarded else None,
        tags=[Tag(name, description) for name, description in TAGS.items()],
        path="/openapi.json",
        render_plugins=[Description()],
    )


@get("/health/live", include_in_schema=False)
async def _live() -> dict[str, str]:
    return {"status": "UP"}


@get("/health/ready", include_in_schema=False)
async def _ready(services: NamedDependency[Services]) -> Response[dict[str, str]]:
    if services.is_ready:
        return Response({"status": "UP"})
    return Response({"status": "DOWN", "reason": "NATS cannot be reached"}, status_code=503)
