"""The interface of identity providers, which resolve an endpoint token (1/KP) to an endpoint.

What lives here: the interface, and how a log may show a token. What does not: the providers (`open`, `static`, `ecap`),
and waiting for one (`kaa_gateway.identity.resolver`).
"""

import math
from http import HTTPStatus
from typing import NamedTuple, Protocol

SHOWN_CHARACTERS = 4
"""The most characters of a token that a log or a message may show."""

TOKEN_REJECTED = "token_rejected"
"""Reason of the `IdentityError` (status 401) for a token that belongs to no endpoint."""


class Identity(NamedTuple):
    """The endpoint that a token belongs to."""

    endpoint_id: str
    token_id: str | None = None
    """The name of the token in revocations, if it can be revoked."""
    valid_until: float = math.inf
    """When the answer must be asked for again, on the clock of `time.monotonic`."""


class IdentityProvider(Protocol):
    """Knows which endpoint a token belongs to."""

    async def start(self) -> None:
        """Prepare to resolve. Raises `ConfigError` if the configuration makes that impossible."""

    async def stop(self) -> None:
        """Release what `start` took; `resolve` is not called any more."""

    def scope(self, app_version_name: str) -> str:
        """Return the scope in which a token of this application version is unique: the version, or its application."""
        ...

    def known(self, scope: str, token: str) -> Identity | None:
        """Return the endpoint of `token` if it is known without a request, else None.

        Raises `IdentityError` as `resolve` does, if it is known that there is none.
        """
        ...

    async def resolve(self, scope: str, token: str) -> Identity:
        """Return the endpoint of `token`.

        Raises `IdentityError`: status 401, reason `token_rejected`, if there is none; another status if the
        provider cannot answer. May be cancelled at any time.
        """
        ...


def shortened(token: str) -> str:
    """Return a token as a log may show it: its first characters, never more than half of it."""
    return token[: min(SHOWN_CHARACTERS, len(token) // 2)] + "…"


def is_definite(status: int) -> bool:
    """Return whether a status answers the question; False for one that means that the service cannot answer now."""
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    )
