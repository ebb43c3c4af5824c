"""Parameters that several operations of the REST API have, and how bodies are taken as they are."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from litestar import Request
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import PathParameter, QueryParameter

from kaa_ext.rest.problems import wrong

PREFIX = "/api/v1"
"""The beginning of all paths."""
TIME_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999, as UNIX time."""
BELOW_ZERO = -1
"""The exclusive minimum of what is not negative: Litestar does not describe a minimum of 0."""
PAGE_MAX = 1000
SEQUENCE_MAX = 2**53 - 1

Endpoint: TypeAlias = Annotated[
    str, PathParameter(pattern=r"^[A-Za-z0-9._~-]{1,256}(?!\n)$", description="Endpoint ID.")
]
METADATA_KEY = r"^[a-zA-Z0-9_]{1,256}(?!\n)$"
MEDIA_TYPE = re.compile(r"[!#$&^_.+A-Za-z0-9-]{1,64}/[!#$&^_.+A-Za-z0-9-]{1,64}(;[ -~]{0,128})?")
NAME = r"^[A-Za-z0-9_-]{1,128}(?!\n)$"
AppVersion: TypeAlias = Annotated[
    str, QueryParameter(pattern=NAME, name="appVersion", description="Application version of the endpoint.")
]
AnyAppVersion: TypeAlias = Annotated[
    str | None,
    QueryParameter(pattern=NAME, name="appVersion", description="Application version; all without it."),
]
Limit: TypeAlias = Annotated[
    int, QueryParameter(ge=1, le=PAGE_MAX, description="The most entries of a page.")
]

Start: TypeAlias = Annotated[
    int, QueryParameter(gt=BELOW_ZERO, le=SEQUENCE_MAX, description="The `next` of the page before.")
]


def time(name: str, description: str) -> Any:
    """Return the parameter for a time."""
    return QueryParameter(
        name=name,
        gt=BELOW_ZERO,
        le=TIME_MAX,
        description=f"{description} UNIX time in milliseconds.",
    )


@dataclass
class OptionalJsonBody(Operation):
    """An operation whose body may be any JSON value, or none."""

    def __post_init__(self) -> None:
        self.request_body = _body(Schema(), required=False)


@dataclass
class TypedBody(Operation):
    """An operation whose body is of the type that Content-Type says. The description has the types that are usual."""

    def __post_init__(self) -> None:
        text = Schema(type=OpenAPIType.STRING)
        content = {"application/json": Schema(), "text/plain": text, "application/octet-stream": text}
        self.request_body = RequestBody(
            content={media_type: OpenAPIMediaType(schema=schema) for media_type, schema in content.items()},
            required=True,
        )


@dataclass
class MetadataBody(Operation):
    """An operation whose body is an object of metadata."""

    def __post_init__(self) -> None:
        schema = Schema(
            type=OpenAPIType.OBJECT, additional_properties=True, property_names=Schema(pattern=METADATA_KEY)
        )
        self.request_body = _body(schema, required=True)


def _body(schema: Schema, *, required: bool) -> RequestBody:
    return RequestBody(content={"application/json": OpenAPIMediaType(schema=schema)}, required=required)


async def typed_body(request: Request[Any, Any, Any]) -> tuple[str, bytes]:
    """Return the type of a body, and the body as it is. Raise 415 if the request does not name its type."""
    content_type = request.headers.get("content-type", "")
    if not MEDIA_TYPE.fullmatch(content_type):
        raise wrong("header", "Content-Type", "Expected the type of the body, such as text/plain", 415)
    return content_type, await request.body()


async def json_body(request: Request[Any, Any, Any]) -> bytes:
    """Return the body of a request as it is, so that no number is rounded. Raise 415 if it is not called JSON."""
    content = await request.body()
    if content and request.content_type[0] != "application/json":
        raise wrong("header", "Content-Type", "Expected application/json", 415)
    return content
