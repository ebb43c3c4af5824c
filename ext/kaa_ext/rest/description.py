"""Serves the description of the API, with what Litestar's lacks."""

from typing import Any

from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

CLOSED = ("NewToken",)
"""Schemas of bodies that allow no other properties."""


class Description(JsonRenderPlugin):
    """The OpenAPI document."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the document as JSON."""
        return self.render_json(request, completed(openapi_schema))


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Complete a document, and return it.

    Litestar describes a parameter that may be left out as one that may be null, and a struct that forbids unknown
    fields as one that allows them.
    """
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
    for name in CLOSED:
        document["components"]["schemas"][name]["additionalProperties"] = False
    return document


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter without the possibility of null."""
    kinds = [kind for kind in schema.get("oneOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key != "oneOf"}, **kinds[0]}
