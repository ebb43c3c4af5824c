"""Who is the client: what a connection presents about itself, before any endpoint token.

What lives here: what a peer presents, what comes out of it, and who admits everybody. What does not: checking
credentials.

The principal that comes out scopes client identifiers: two clients with equal identifiers are the same client only if
they have the same principal. An empty principal is an anonymous client.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from kaa_gateway.wire.certificate import ClientCertificate

ANONYMOUS = ""


class Presentation(NamedTuple):
    """All that a peer says about itself; nothing of it is checked but the certificate's chain."""

    transport: str
    """`mqtt`, `http` or `coap`, over whatever they run."""
    user_name: str | None = None
    password: bytes | None = None
    certificate: ClientCertificate | None = None

    def __repr__(self) -> str:
        """Without the password: it may end up in a log or a traceback."""
        return f"Presentation({self.transport!r}, {self.user_name!r}, certificate={self.certificate!r})"


class Client(NamedTuple):
    """A client as it was admitted."""

    principal: str = ANONYMOUS
    """What names its credentials, as revocations do; empty for none."""
    tenant: str | None = None
    """The only tenant whose applications it may speak for; None is any."""


ANONYMOUS_CLIENT = Client()


class Authenticator(Protocol):
    """Decides which clients are admitted."""

    def authenticate(self, presentation: Presentation) -> Client | asyncio.Future[Client]:
        """Who the peer is; a future of the caller's own, if that is not known at once.

        Raises `IdentityError`, or the future does, which the caller looks at: status 401 for credentials that are wrong
        or missing, 503 if nobody can tell now.
        """
        ...


class AdmitAnonymous:
    """Admits every client as anonymous, whatever it presents: credentials that nobody has checked prove nothing."""

    def authenticate(self, presentation: Presentation) -> Client:
        """An anonymous client."""
        return ANONYMOUS_CLIENT


def basic_credentials(authorization: bytes | None) -> tuple[str | None, bytes | None]:
    """User name and password in an HTTP Authorization field; None for both if it is absent, or of another scheme.

    ValueError if it is of the scheme Basic and malformed (RFC 7617).
    """
    scheme, _, encoded = (authorization or b"").strip().partition(b" ")
    if scheme.lower() != b"basic":
        return None, None
    user_name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    if not colon:
        raise ValueError("no colon in Basic credentials")
    return user_name.decode(), password
