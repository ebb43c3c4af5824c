"""The requests and responses of handlers: typed, immutable, independent of NATS and Avro.

Source: 4/ESP, ClientData and ExtensionData.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec

from kaa_ext.sdk.errors import ExtensionError


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a device.

    `endpoint_id` is None for an endpoint-unaware extension; `request_id` is None if the device wants no response.
    `resource_path` does not contain the endpoint token and may be empty. `timestamp` (of the gateway) and `deadline`
    (None for never) are UNIX times in milliseconds. `config_name` is the one of 4/ESP; None is the default
    configuration. `parameters` has the values of the levels in braces of `route`, the handler's resource path.
    `gateway_replica_id` is the gateway replica that sent the message, if its reply-to names one. `trace_parent` is the
    W3C `traceparent` of a message that the gateway traces.
    """

    endpoint_id: str | None
    app_version_name: str
    resource_path: str
    request_id: int | None
    payload: bytes
    correlation_id: str
    timestamp: int
    deadline: int | None
    config_name: str | None
    parameters: Mapping[str, str]
    route: str = ""
    gateway_replica_id: str | None = None
    trace_parent: str | None = None


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

INTERNAL_ERROR = Response(500, None, HTTPStatus.INTERNAL_SERVER_ERROR.phrase)
NOT_FOUND = Response(404, None, "Unknown resource path")
