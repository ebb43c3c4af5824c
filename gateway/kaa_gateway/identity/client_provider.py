"""The interface of client providers, which check the credentials of clients.

What lives here: the interface, and the credentials. What does not: the providers
(`kaa_gateway.identity.service_clients`, `kaa_gateway.identity.static`), and caches of answers
(`kaa_gateway.identity.authenticator`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from kaa_gateway.wire.certificate import ClientCertificate

if TYPE_CHECKING:
    from kaa_gateway.bus.requests import Requests
    from kaa_gateway.identity.clients import Client

CREDENTIALS_REJECTED = "credentials_rejected"
"""Reason of the `IdentityError` (status 401) for credentials that are not right."""


class Credentials(NamedTuple):
    """The credentials of a client: user name and password, or a certificate."""

    user_name: str = ""
    password: bytes | None = None
    certificate: ClientCertificate | None = None
    """The certificate that is to be checked."""
    shown_certificate: ClientCertificate | None = None
    """The certificate that came with a user name and a password."""

    def __repr__(self) -> str:
        """Return a text without the password."""
        return f"Credentials({self.user_name!r}, certificate={self.certificate!r})"


class ClientProvider(Protocol):
    """Checks the credentials of clients."""

    requests: tuple[Requests, ...]
    """The requests that it makes, for the metrics."""

    async def start(self) -> None:
        """Prepare to check. Raises `ConfigError` if the configuration makes that impossible."""

    async def stop(self) -> None:
        """Release what `start` took."""

    async def check(self, credentials: Credentials) -> Client:
        """Return the client of these credentials. Raises `IdentityError`: 401 for wrong ones, 503 without an answer."""
        ...
