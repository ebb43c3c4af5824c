"""Guard the management API: a request needs the token, or, if none is set, must come from this machine.

Health and metrics are open to probes and scrapers. So are the page, the certificate, the description of the API, the
explanations of reasons and the history, which hold no secrets and nothing about single devices.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware

from kaa_gateway.access import BearerToken, is_local

GUARDED = "/api/"
OPEN = frozenset(f"/api/v1/{name}" for name in ("certificate", "history", "openapi.json", "reasons"))


class Guard:
    """The access rule of one management port; `token` is None if none is set."""

    def __init__(self, token: BearerToken | None) -> None:
        self._token = token

    @classmethod
    def from_file(cls, path: Path | None) -> Guard:
        """Return the rule with the token in this file, if there is one; ConfigError if the file cannot be used."""
        return cls(None if path is None else BearerToken(path, "server.token-file"))

    @property
    def middleware(self) -> Middleware:
        """The middleware that lets a request pass, or answers 401 or 403."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith(GUARDED) and request.path not in OPEN:
                if self._token is not None:
                    await self._token.refresh()
                self._check(request)
            return await handler(request)

        return guarded

    def _check(self, request: web.Request) -> None:
        if self._token is not None:
            if not self._token.is_in(request.headers.get("Authorization", "")):
                raise web.HTTPUnauthorized(
                    headers={"WWW-Authenticate": "Bearer"},
                    text="The management API needs its bearer token.\n",
                )
        elif not _is_local(request):
            raise web.HTTPForbidden(
                text="Without server.token-file, the management API answers requests from its own machine only: to the "
                "name localhost, over HTTP/1.1, and not through a proxy.\n"
            )


def _is_local(request: web.Request) -> bool:
    assert request.transport is not None
    peer = request.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return True  # a Unix socket, in a directory that only the supervisor can enter
    return is_local(
        peer[0],
        request.url.host or "",
        is_http_11=request.version >= HttpVersion11,
        fields=request.headers,
    )
