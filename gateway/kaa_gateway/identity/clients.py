"""Clients: what a connection presents about itself before any endpoint token, and who decides about it.

What lives here: the types that transports and providers share. What does not: checking credentials
(`kaa_gateway.identity.authenticator`).

A principal scopes client identifiers: two clients with equal identifiers are the same client only if they have the same
principal. An anonymous client has an empty principal.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from kaa_gateway.wire.certificate import ClientCertificate

ANONYMOUS = ""


class Presentation(msgspec.Struct, frozen=True):
    """What a peer presents about itself. Only the chain of the certificate has been verified."""

    transport: str
    """`mqtt`, `http` or `coap`, with or without encryption; `coaps+tcp` or `coaps+ws`."""
    user_name: str | None = None
    password: bytes | None = None
    certificate: ClientCertificate | None = None

    def __repr__(self) -> str:
        """Return a text without the password: it may end up in a log or a traceback."""
        return f"Presentation({self.transport!r}, {self.user_name!r}, certificate={self.certificate!r})"


class Client(NamedTuple):
    """An admitted client."""

    principal: str = ANONYMOUS
    """The name of its credentials in revocations; empty for none."""
    tenant: str | None = None
    """The only tenant whose applications it may use; None is any."""
    client_id: str | None = None
    """Its ID at the provider, which may have several credentials of one client; None if the provider names none."""
    only_token: bytes | None = None
    """The only endpoint token that it may use; None is any."""


ANONYMOUS_CLIENT = Client()


class Authenticator(Protocol):
    """Decides which clients are admitted."""

    def authenticate(self, presentation: Presentation) -> Client | asyncio.Future[Client]:
        """Return the client, or a future of it if a provider must be asked. The future is the caller's own.

        Raises `IdentityError`, or gives the future that exception: status 401 for wrong or missing credentials, 503 if
        no provider can answer now.
        """
        ...


def basic_credentials(authorization: bytes | None) -> tuple[str | None, bytes | None]:
    """Return user name and password of an HTTP Authorization field; None for both without one of the scheme Basic.

    Raises ValueError if it is of the scheme Basic and malformed (RFC 7617).
    """
    scheme, _, encoded = (authorization or b"").strip().partition(b" ")
    if scheme.lower() != b"basic":
        return None, None
    user_name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    if not colon:
        raise ValueError("no colon in Basic credentials")
    return user_name.decode(), password
