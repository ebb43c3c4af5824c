"""The responses of handlers, and the types of handlers and their results. Requests are in request.pyx.

Source: 4/ESP, ExtensionData.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.request import Request

__all__ = [
    "INTERNAL_ERROR",
    "NOT_FOUND",
    "BatchHandler",
    "BatchResult",
    "Handler",
    "Request",
    "Response",
    "Result",
]


class Response(msgspec.Struct, frozen=True):
    """An answer to a device. `status_code` is an HTTP status, 200 to 599; all but 2xx are errors."""

    status_code: int = 200
    payload: bytes | None = b""
    reason_phrase: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.payload, bytes | None) or not isinstance(self.reason_phrase, str | None):
            raise TypeError("a response has bytes as payload and text as reason phrase")
        if not 200 <= self.status_code <= 599:
            raise ValueError(f"status code {self.status_code} is not that of a response, 200 to 599")

    @classmethod
    def of_error(cls, error: ExtensionError) -> "Response":
        """Return the response for an error. It has no payload."""
        return cls(error.status_code, None, error.reason_phrase)


Result: TypeAlias = bytes | Response | msgspec.Struct | dict[str, Any] | list[Any] | None
"""A handler's result: a payload, None (status 200), a value that becomes JSON, or a complete response."""

Handler: TypeAlias = Callable[..., Result | Awaitable[Result] | AsyncIterator[Result]]
"""A function that takes the request, and as an optional second parameter the payload, decoded to its annotated type.

A plain handler runs on the event loop and must not block; an async one runs beside others; an async generator answers
with its first item and pushes the others to the endpoint.
"""

BatchResult: TypeAlias = Sequence[Result | ExtensionError] | None
"""A batch handler's result: the result of each request, in order, or None if all have the result None."""

BatchHandler: TypeAlias = Callable[[list[Request]], BatchResult | Awaitable[BatchResult]]
"""A function that takes all requests of a turn of the event loop. What it raises is the error of all of them."""

INTERNAL_ERROR = Response(500, None, HTTPStatus.INTERNAL_SERVER_ERROR.phrase)
NOT_FOUND = Response(404, None, "Unknown resource path")
