"""Guard the management API: a request needs the token, or, if none is set, must come from this machine.

Health and metrics are open to probes and scrapers. So are the page, the certificate and the description of the API,
which hold no secrets. The token's file is read again when it has changed.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from pathlib import Path

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware

from kaa_gateway.errors import ConfigError
from kaa_gateway.files import START_PAUSE, complete, state_of, wait_if_fresh

log = structlog.get_logger("gateway.admin")

GUARDED = "/api/"
OPEN = frozenset({"/api/v1/certificate", "/api/v1/openapi.json"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
FORWARDED = frozenset({
    "cdn-loop", "cf-connecting-ip", "cf-connecting-ipv6", "cf-ray", "client-ip", "fastly-client-ip", "forwarded",
    "forwarded-for", "proxy-client-ip", "true-client-ip", "via", "wl-proxy-client-ip", "x-amzn-trace-id",
    "x-appengine-user-ip", "x-arr-log-id", "x-azure-clientip", "x-azure-ref", "x-client-ip", "x-cluster-client-ip",
    "x-forwarded", "x-host", "x-proxyuser-ip", "x-real-ip", "x-real-port", "x-remote-addr", "x-remote-ip", "x-scheme",
    "x-url-scheme", "x-varnish",
})  # fmt: skip
"""Header fields that proxies set, in lower case: a request with one of them may come from another machine."""
FORWARDED_PREFIXES = ("x-envoy-", "x-forwarded-", "x-original-", "x-proxy-")
"""How further ones of these begin."""
TOKEN_SIZE_MIN = 16


class Guard:
    """The access rule of one management port. `token` is None if none is set; `path` is the file that it is in."""

    def __init__(self, token: str | None, path: Path | None = None) -> None:
        self._token = token
        self._path = path
        self._state = None if path is None else state_of(path)
        self._reading = asyncio.Lock()

    @classmethod
    def from_file(cls, path: Path | None) -> Guard:
        """Return the rule with the token in this file, if there is one; ConfigError if the file cannot be used."""
        if path is None:
            return cls(None)
        wait_if_fresh(path)
        return cls(_read_token(path), path)

    @property
    def middleware(self) -> Middleware:
        """The middleware that lets a request pass, or answers 401 or 403."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith(GUARDED) and request.path not in OPEN:
                if self._path is not None:
                    await self._read_again(self._path)
                self._check(request)
            return await handler(request)

        return guarded

    async def _read_again(self, path: Path) -> None:
        """Read the token if its file has changed. A file without a good token changes nothing."""
        if state_of(path) == self._state:
            return
        async with self._reading:
            (state,) = await complete([path], START_PAUSE)
            if state == self._state:
                return
            self._state = state
            try:
                self._token = _read_token(path)
            except ConfigError as error:
                log.error("the management token is not renewed", error=error.detail)
            else:
                log.info("the management token was renewed")

    def _check(self, request: web.Request) -> None:
        if self._token is not None:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            # compare_digest takes text only if it is ASCII, so it is given bytes.
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                token.strip().encode("utf-8", "surrogateescape"), self._token.encode()
            ):
                raise web.HTTPUnauthorized(
                    headers={"WWW-Authenticate": "Bearer"},
                    text="The management API needs its bearer token.\n",
                )
        elif not _is_local(request):
            raise web.HTTPForbidden(
                text="Without server.token-file, the management API answers requests from its own machine only: to the "
                "name localhost, over HTTP/1.1, and not through a proxy.\n"
            )


def _read_token(path: Path) -> str:
    """Return the token in a file; ConfigError if there is none."""
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
    return token


def _is_local(request: web.Request) -> bool:
    """Return whether a request was made on this machine, without a proxy, and names it in Host.

    Proxies are known by the fields that they set, and by HTTP/1.0, which nginx speaks to its upstreams unless told
    otherwise. One that hides itself cannot be told from a client (docs/operations.md).

    Any other name could be that of a web site which resolves to this machine so that its page can use the API (DNS
    rebinding).
    """
    assert request.transport is not None
    peer = request.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return True  # a Unix socket, in a directory that only the supervisor can enter
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (
        (mapped or address).is_loopback
        and (request.url.host or "").strip("[]") in LOCAL_NAMES
        and request.version >= HttpVersion11
        and not any(map(_is_forwarded, request.headers))
    )


def _is_forwarded(field: str) -> bool:
    """Return whether a header field is one that proxies set."""
    name = field.lower()
    return name in FORWARDED or name.startswith(FORWARDED_PREFIXES)
