"""From the function that a service registers to one that takes a request and gives a response.

A function may take the decoded payload beside the request, return a value that becomes JSON, be async, or be an async
generator; and middleware may stand around it. All of that is settled here, once, when the extension starts.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from kaa_ext.sdk import payloads
from kaa_ext.sdk.requests import Handler, Request, Response, Result

CallNext: TypeAlias = Callable[[Request], Awaitable[Response]]
Middleware: TypeAlias = Callable[[Request, CallNext], Awaitable[Response]]
"""Stands around a handler: what it awaits from `call_next` is always a response, of errors too."""

_JSON_TYPES = (msgspec.Struct, dict, list)


def bind(function: Handler) -> Callable[[Request], Any]:
    """The function as one that takes the request only. TypeError if its parameters are wrong.

    What it returns is still a result, an awaitable of one, or an async iterator of several.
    """
    kind = payloads.payload_type(function)
    if kind is None:
        return function
    decode = payloads.decoder(kind)

    def call(request: Request) -> Any:
        return function(request, decode(request.payload))

    return call


def is_stream(function: Handler) -> bool:
    """Whether a handler answers with its first item, and pushes the others."""
    return inspect.isasyncgenfunction(function)


def response_of(result: object) -> Response:
    """The response that a handler's result stands for. TypeError if it stands for none."""
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
    """The first item of a stream, which answers its request; nothing if there is none."""
    return await anext(items, None)


def chain(middleware: Sequence[Middleware], innermost: CallNext) -> CallNext:
    """The innermost call with all middleware around it, the first outermost."""
    for layer in reversed(middleware):
        innermost = _around(layer, innermost)
    return innermost


def _around(layer: Middleware, call_next: CallNext) -> CallNext:
    async def call(request: Request) -> Response:
        return await layer(request, call_next)

    return call
