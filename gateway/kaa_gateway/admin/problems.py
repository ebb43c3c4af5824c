"""Errors of the management API, as RFC 9457 says it: `application/problem+json`."""

from __future__ import annotations

import http

from aiohttp import web
from aiohttp.typedefs import Handler


def problem(status: int, detail: str) -> web.Response:
    """An error with a sentence for whoever made the request."""
    return web.json_response(
        {"title": http.HTTPStatus(status).phrase, "status": status, "detail": detail},
        status=status,
        content_type="application/problem+json",
    )


@web.middleware
async def as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error that a handler or the server raises becomes a problem, with its header fields."""
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
