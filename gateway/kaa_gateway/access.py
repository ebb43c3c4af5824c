"""Who may use a management API: whoever has its bearer token, or, if it has none, programs on this machine.

Nothing here knows a web framework: kaa_gateway.admin.access and kaa_ext.rest.access apply these rules to requests.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

from kaa_gateway.errors import ConfigError
from kaa_gateway.files import START_PAUSE, complete, state_of, wait_if_fresh

log: Any = structlog.get_logger("access")

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


class BearerToken:
    """The token in a file, which is read again when it has changed. `key` is the name of the setting, for errors."""

    def __init__(self, path: Path, key: str) -> None:
        wait_if_fresh(path)
        self._path = path
        self._key = key
        self._token = _read_token(path, key)
        self._state = state_of(path)
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the token if its file has changed. A file without a good token changes nothing."""
        if state_of(self._path) == self._state:
            return
        async with self._reading:
            (state,) = await complete([self._path], START_PAUSE)
            if state == self._state:
                return
            self._state = state
            try:
                self._token = _read_token(self._path, self._key)
            except ConfigError as error:
                log.error("the management token is not renewed", error=error.detail)
            else:
                log.info("the management token was renewed")

    def is_in(self, authorization: str) -> bool:
        """Return whether the value of a request's Authorization field has the token."""
        scheme, _, token = authorization.partition(" ")
        # compare_digest takes text only if it is ASCII, so it is given bytes.
        return scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("utf-8", "surrogateescape"), self._token.encode()
        )


def is_local(peer: str, host: str, *, is_http_11: bool, fields: Iterable[str]) -> bool:
    """Return whether a request was made on this machine, without a proxy, and names it in Host.

    `peer` is the address that it came from, `host` the name in Host without the port, `fields` the names of its header
    fields. Proxies are known by the fields that they set, and by HTTP/1.0, which nginx speaks to its upstreams unless
    told otherwise. One that hides itself cannot be told from a client (docs/operations.md).

    Any other name could be that of a web site which resolves to this machine so that its page can use the API (DNS
    rebinding).
    """
    address = ipaddress.ip_address(peer.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (
        (mapped or address).is_loopback
        and host.strip("[]") in LOCAL_NAMES
        and is_http_11
        and not any(map(_is_forwarded, fields))
    )


def _read_token(path: Path, key: str) -> str:
    """Return the token in a file. Raise ConfigError if there is none."""
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


def _is_forwarded(field: str) -> bool:
    """Return whether a header field is one that proxies set."""
    name = field.lower()
    return name in FORWARDED or name.startswith(FORWARDED_PREFIXES)
