"""Errors of the management API, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import http

from aiohttp import web
from aiohttp.typedefs import Handler


def problem(status: int, detail: str) -> web.Response:
    """Return an error response; `detail` is a sentence for the user."""
    return web.json_response(
        {"title": http.HTTPStatus(status).phrase, "status": status, "detail": detail},
        status=status,
        content_type="application/problem+json",
    )


@web.middleware
async def as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn each HTTP error that a handler or aiohttp raises into a problem, with its header fields."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < http.HTTPStatus.BAD_REQUEST:
            raise
        response = problem(error.status, (error.text or "").strip() or error.reason)
        for name in ("WWW-Authenticate", "Allow"):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response
