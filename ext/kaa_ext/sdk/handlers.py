"""Makes uniform calls of the functions that a service registers as handlers.

A handler may take the decoded payload beside the request, return a value that becomes JSON, be async, or be an async
generator; middleware may stand around it. `bind` and `is_stream` look at a function once, when it is registered.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from kaa_ext.sdk import payloads
from kaa_ext.sdk.requests import Handler, Request, Response, Result

CallNext: TypeAlias = Callable[[Request], Awaitable[Response]]
Middleware: TypeAlias = Callable[[Request, CallNext], Awaitable[Response]]
"""A function around a handler. `call_next` always returns a response, also for errors."""

_JSON_TYPES = (msgspec.Struct, dict, list)


def bind(function: Handler) -> Callable[[Request], Any]:
    """Return the handler as a function that takes only the request. Raise TypeError if its parameters are wrong.

    The function still returns a result, an awaitable of one, or an async iterator of several.
    """
    kind = payloads.payload_type(function)
    if kind is None:
        return function
    decode = payloads.decoder(kind)

    def call(request: Request) -> Any:
        return function(request, decode(request.payload))

    return call


def is_stream(function: Handler) -> bool:
    """Return whether a handler is an async generator: it answers with its first item and pushes the others."""
    return inspect.isasyncgenfunction(function)


def response_of(result: object) -> Response:
    """Return the response for a handler's result. Raise TypeError if the result has a wrong type."""
    if isinstance(result, Response):
        return result
    if result is None:
        return Response()
    if isinstance(result, bytes):
        return Response(payload=result)
    if isinstance(result, _JSON_TYPES):
        return Response(payload=payloads.encode(result))
    raise TypeError(f"handler returned {type(result).__name__}")


async def first_of(items: AsyncIterator[Result]) -> Result:
    """Return the first item of a stream, or None if there is none."""
    return await anext(items, None)


def chain(middleware: Sequence[Middleware], innermost: CallNext) -> CallNext:
    """Return `innermost` with all middleware around it; the first one is the outermost."""
    for layer in reversed(middleware):
        innermost = _around(layer, innermost)
    return innermost


def _around(layer: Middleware, call_next: CallNext) -> CallNext:
    async def call(request: Request) -> Response:
        return await layer(request, call_next)

    return call
