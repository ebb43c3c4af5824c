"""Finds the handler for the resource path of a message.

A pattern is a resource path in which `{name}` matches one level, and a final `*` matches anything, also nothing:
`/json`, `/plain/{metric}`, `/config/json*`, `*`. The most specific pattern wins: an exact path first, then the pattern
with the longest text before its first wildcard.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from kaa_ext.sdk.requests import Request

Respond: TypeAlias = Literal["requested", "errors", "always"]
"""Which requests are answered: those with a request ID, or all. 1/KP leaves that to the extension."""

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NO_PARAMETERS: Mapping[str, str] = {}


class Route(NamedTuple):
    """A registered handler. A handler that `streams` is an async generator."""

    pattern: str
    handler: Callable[[Request], Any]
    respond: Respond
    streams: bool


class Routes:
    """The handlers of one extension."""

    def __init__(self) -> None:
        self._exact: dict[str, Route] = {}
        self._patterns: list[tuple[int, re.Pattern[str], Route]] = []

    def add(
        self, pattern: str, handler: Callable[[Request], Any], respond: Respond, streams: bool = False
    ) -> None:
        """Register a handler. Raise ValueError for a pattern that is not well formed or has a handler already."""
        literal = pattern.removesuffix("*")
        pieces = _PARAMETER.split(literal)
        texts, names = pieces[::2], pieces[1::2]
        if any(set(text) & set("{}*") for text in texts):
            raise ValueError(
                f"resource path {pattern!r}: expected {{name}} for a level and * at the end only"
            )
        if len(set(names)) != len(names):
            raise ValueError(f"resource path {pattern!r}: a name in braces occurs twice")
        if pattern in self._exact or any(route.pattern == pattern for _, _, route in self._patterns):
            raise ValueError(f"resource path {pattern!r} has a handler already")
        route = Route(pattern, handler, respond, streams)
        if not names and literal == pattern:
            self._exact[pattern] = route
            return
        expression = re.escape(texts[0])
        for name, text in zip(names, texts[1:], strict=True):
            expression += f"(?P<{name}>[^/]+){re.escape(text)}"
        if literal != pattern:
            expression += ".*"
        self._patterns.append((len(texts[0]), re.compile(expression, re.DOTALL), route))
        self._patterns.sort(key=lambda entry: -entry[0])

    def find(self, resource_path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Return the route of a resource path and the values of its levels in braces; None if there is no route."""
        route = self._exact.get(resource_path)
        if route is not None:
            return route, _NO_PARAMETERS
        for _, expression, route in self._patterns:
            match = expression.fullmatch(resource_path)
            if match:
                return route, match.groupdict()
        return None
