"""Errors of the REST API, as `application/problem+json` (RFC 9457).

Beside the members of the RFC, a problem has `errors`: what is wrong with which field of the request.
"""

import http
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
import nats.errors
import structlog
from litestar import Request, Response
from litestar.exceptions import ClientException, HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from kaa_ext.operations.errors import Unavailable
from kaa_ext.sdk.errors import ExtensionError

if TYPE_CHECKING:
    from litestar.types import Send

log: Any = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
"""What clients are told while a service is not available."""

_MISSING = re.compile(r"Missing required query parameter '([^']+)'")
_NAMED = re.compile(r"field `([^`]+)`")

Place: TypeAlias = Literal["path", "query", "header", "body"]
AnyRequest: TypeAlias = Request[Any, Any, Any]


class FieldError(msgspec.Struct):
    """What is wrong with one field: where it is, its name (empty: the whole body), and a sentence."""

    place: Place
    field: str
    detail: str


class Problem(msgspec.Struct, omit_defaults=True):
    """An error (RFC 9457)."""

    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        title = http.HTTPStatus(status).phrase
        self.problem = Problem(title, status, detail, list(errors))
        self.headers = dict(headers or {})


def wrong(place: Place, field: str, detail: str, status: int = 400) -> ProblemError:
    """Return the error for a field."""
    return ProblemError(status, detail, [FieldError(place, field, detail)])


@contextmanager
def about(place: Place, field: str) -> Iterator[None]:
    """Name this field in the problem if an operation refuses the request."""
    try:
        yield
    except ExtensionError as error:
        if error.status_code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        raise wrong(place, field, error.reason_phrase, error.status_code) from error


def responses(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the problems that an operation may answer with, for its description; every one may answer with some."""
    descriptions = {
        400: "The request is wrong; `errors` says where.",
        401: "The bearer token is missing or wrong.",
        403: "No token is set, and the request does not come from this machine.",
        404: "There is no such thing.",
        409: "It exists already.",
        413: "The body is too large, or the endpoint would have too much.",
        415: "The body is not `application/json`, or its type is not said.",
        429: "The endpoint has too many of these.",
        503: "NATS or a service is not available.",
    }
    return {
        status: ResponseSpec(
            Problem, generate_examples=False, description=descriptions[status], media_type=MEDIA_TYPE
        )
        for status in sorted({400, 401, 403, 503, *statuses})
    }


async def send_problem(send: "Send", error: ProblemError) -> None:
    """Answer a request with a problem, before it has reached the application."""
    body = msgspec.json.encode(error.problem)
    fields = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), **error.headers}
    headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": error.problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def answer(error: ProblemError) -> Response[Problem]:
    """Return the response for a problem."""
    return Response(
        error.problem, status_code=error.problem.status, media_type=MEDIA_TYPE, headers=error.headers
    )


def _on_problem(request: AnyRequest, error: ProblemError) -> Response[Problem]:
    return answer(error)


def _on_http(request: AnyRequest, error: HTTPException) -> Response[Problem]:
    errors, detail = [], error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        errors = [_field_error(each) for each in error.extra]
        detail = "; ".join(f"{each.field}: {each.detail}" for each in errors)
    elif isinstance(error, ClientException) and error.status_code == http.HTTPStatus.BAD_REQUEST:
        missing = _MISSING.search(detail)
        errors = [
            FieldError("query", missing[1], "It is missing") if missing else FieldError("body", "", detail)
        ]
    elif error.status_code == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        errors = [FieldError("body", "", detail)]
    return answer(ProblemError(error.status_code, detail, errors, error.headers))


def _field_error(found: dict[str, Any]) -> FieldError:
    """Return what Litestar found wrong with a field. It calls the body `data`."""
    place: Place = found.get("source") or "body"
    key, message = found.get("key", ""), found["message"]
    if place != "body":
        # Litestar knows them by their names in Python.
        first, *others = key.rstrip("_").split("_")
        key = first + "".join(map(str.capitalize, others))
    else:
        key = key.removeprefix("data").removeprefix(".")
        named = _NAMED.search(message)
        if named is not None:
            key = ".".join(filter(None, (key, named[1])))
    return FieldError(place, key, message.replace("`", ""))


def _on_refusal(request: AnyRequest, error: ExtensionError) -> Response[Problem]:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if error.status_code == 503 else {}
    return answer(ProblemError(error.status_code, error.reason_phrase, headers=headers))


def _on_unavailable(request: AnyRequest, error: Exception) -> Response[Problem]:
    detail = str(error) if isinstance(error, Unavailable) else "NATS does not answer"
    return answer(ProblemError(503, detail, headers={"Retry-After": str(RETRY_AFTER_S)}))


def _on_failure(request: AnyRequest, error: Exception) -> Response[Problem]:
    log.error("a request has failed", method=request.method, path=request.url.path, exc_info=error)
    return answer(ProblemError(500, "The request has failed; the log of the server says why"))


HANDLERS: dict[int | type[Exception], Any] = {
    ProblemError: _on_problem,
    HTTPException: _on_http,
    ExtensionError: _on_refusal,
    Unavailable: _on_unavailable,
    nats.errors.Error: _on_unavailable,
    Exception: _on_failure,
}
"""The handlers of exceptions, by type."""
