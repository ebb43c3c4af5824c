"""Finds the handler for the resource path of a message.

A pattern is a resource path in which `{name}` matches one level, and a final `*` matches anything, also nothing:
`/json`, `/plain/{metric}`, `/config/json*`, `*`. The most specific pattern wins: an exact path first, then the pattern
with the longest text before its first wildcard.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from kaa_ext.sdk.route import Route

Respond: TypeAlias = Literal["requested", "errors", "always"]
"""Which requests are answered: those with a request ID, or all. 1/KP leaves that to the extension."""

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
_KNOWN_MAX = 4096
"""Resource paths whose route is remembered."""
_KNOWN_PATH_MAX = 256
"""Characters of a resource path that is remembered."""


class Routes:
    """The handlers of one extension."""

    def __init__(self) -> None:
        self._exact: dict[str, Route] = {}
        self._patterns: list[tuple[int, re.Pattern[str], Route]] = []
        self._known: dict[str, tuple[Route, Mapping[str, str]]] = {}

    def __iter__(self) -> Iterator[Route]:
        """Return all routes."""
        yield from self._exact.values()
        yield from (route for _, _, route in self._patterns)

    def add(
        self,
        pattern: str,
        handler: Callable[[Any], Any],
        respond: Respond,
        *,
        streams: bool = False,
        batch: bool = False,
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
        route = Route(pattern, handler, respond, streams, batch)
        self._known.clear()
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
        found = self._known.get(resource_path)
        if found is None:
            found = self._search(resource_path)
            # Devices choose the paths, so the table is bounded.
            if found is not None and len(resource_path) <= _KNOWN_PATH_MAX:
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[resource_path] = found
        return found

    def _search(self, resource_path: str) -> tuple[Route, Mapping[str, str]] | None:
        route = self._exact.get(resource_path)
        if route is not None:
            return route, _NO_PARAMETERS
        for _, expression, route in self._patterns:
            match = expression.fullmatch(resource_path)
            if match:
                return route, MappingProxyType(match.groupdict())
        return None
