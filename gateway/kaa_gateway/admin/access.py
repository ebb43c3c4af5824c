"""Who may use the management API: whoever has the token, or, where none is set, whoever is on this machine.

Health, metrics and what is public anyway (the page, the certificate, the description of the API) are open, as
probes and scrapers need it.
"""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from kaa_gateway.errors import ConfigError

GUARDED = "/api/"
OPEN = frozenset({"/api/v1/certificate", "/api/v1/openapi.json"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
FORWARDED = ("Forwarded", "X-Forwarded-For")
"""Header fields of a proxy: a request that has one comes from elsewhere, whatever its address says."""
TOKEN_SIZE_MIN = 16


class Guard:
    """The rule for one management port. `token` is None if none is set."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    @classmethod
    def from_file(cls, path: Path | None) -> Guard:
        """The rule with the token in a file, if there is one; ConfigError if it cannot be used."""
        if path is None:
            return cls(None)
        key = "server.token-file"
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not ASCII text"
            raise ConfigError("config_invalid", f"{key}: {path}: {reason}") from error
        if len(token) < TOKEN_SIZE_MIN:
            raise ConfigError(
                "config_invalid", f"{key}: {path}: the token must have at least {TOKEN_SIZE_MIN} characters"
            )
        return cls(token)

    @property
    def middleware(self) -> Middleware:
        """Lets a request pass, or answers 401 or 403."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith(GUARDED) and request.path not in OPEN:
                self._check(request)
            return await handler(request)

        return guarded

    def _check(self, request: web.Request) -> None:
        if self._token is not None:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            # Bytes, because compare_digest takes no text beyond ASCII.
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                token.strip().encode("utf-8", "surrogateescape"), self._token.encode()
            ):
                raise web.HTTPUnauthorized(
                    headers={"WWW-Authenticate": "Bearer"},
                    text="The management API needs its bearer token.\n",
                )
        elif not _is_local(request):
            raise web.HTTPForbidden(
                text="Without server.token-file, the management API answers requests from its own machine only.\n"
            )


def _is_local(request: web.Request) -> bool:
    """Whether a request was made on this machine, for this machine: a name of its own for it may be a page's trick."""
    assert request.transport is not None
    peer = request.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return True  # a Unix socket, in a directory of the supervisor's own
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (
        (mapped or address).is_loopback
        and (request.url.host or "").strip("[]") in LOCAL_NAMES
        and not any(name in request.headers for name in FORWARDED)
    )
