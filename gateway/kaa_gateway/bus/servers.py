"""The NATS servers that a connection may use: those of the configuration, and those learned from INFO.

Source: NATS documentation, "Connecting" and "Client Protocol" (INFO, `connect_urls`).
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from kaa_gateway.errors import BusError

DEFAULT_PORT = 4222
DISCOVERED_MAX = 256
"""Servers learned from INFO; more are ignored."""


@dataclass(frozen=True)
class Server:
    """One address of the server list; secrets are left out of its text form."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = None
    token: str | None = None
    tls_name: str | None = None
    """The name in its certificate, if that is not `host`."""

    @classmethod
    def parse(cls, url: str) -> Server:
        """`nats://[user:password@|token@]host[:port]` or `tls://...`; the scheme may be left out."""
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise BusError(
                "nats_url", f"expected nats://host:port or tls://host:port, got {parts.hostname!r}"
            )
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password is not None else None
        if user is not None and password is None:
            return cls(parts.hostname, parts.port or DEFAULT_PORT, parts.scheme == "tls", token=user)
        return cls(parts.hostname, parts.port or DEFAULT_PORT, parts.scheme == "tls", user, password)

    @property
    def url(self) -> str:
        """Its URL, with the credentials."""
        if self.user is not None:
            login = f"{quote(self.user, safe='')}:{quote(self.password or '', safe='')}@"
        elif self.token is not None:
            login = f"{quote(self.token, safe='')}@"
        else:
            login = ""
        return str(self).replace("://", f"://{login}")

    @property
    def certificate_name(self) -> str:
        """The name that its certificate must have."""
        return self.tls_name or self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'nats'}://{host}:{self.port}"


class ServerList:
    """The servers of a list of URLs, in an order of chance, and behind them those that were learned from INFO."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._configured = [Server.parse(url) for url in urls]
        random.shuffle(self._configured)
        self.discovered: list[Server] = []

    def all(self) -> list[Server]:
        """Return the servers to try, in this order."""
        return [*self._configured, *self.discovered]

    def discover(self, told_by: Server, connect_urls: object) -> None:
        """Take the servers of the cluster from the newest INFO, with the credentials of the one that told."""
        if not isinstance(connect_urls, list):
            return
        known = {(each.host, each.port) for each in self._configured}
        found: dict[tuple[str, int], Server] = {}
        for url in connect_urls[:DISCOVERED_MAX]:
            try:
                address = Server.parse(url)
            except (BusError, ValueError, TypeError, AttributeError):
                continue
            if (at := (address.host, address.port)) not in known:
                # Certificates seldom have the addresses that servers tell.
                name = told_by.certificate_name if _is_address(address.host) else None
                found[at] = replace(told_by, host=address.host, port=address.port, tls_name=name)
        self.discovered = list(found.values())
        random.shuffle(self.discovered)


def _is_address(host: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
