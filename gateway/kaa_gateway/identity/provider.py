"""What an identity provider is.

What lives here: the interface that resolves an endpoint token (1/KP) to an endpoint, and how a token may
appear in a log. What does not: the providers (`kaa_gateway.identity.open`, `kaa_gateway.identity.static`), and
waiting for one (`kaa_gateway.identity.resolver`).
"""

import math
from http import HTTPStatus
from typing import NamedTuple, Protocol

SHOWN_CHARACTERS = 4
"""How much of a token a log or a message may show, at most."""

TOKEN_REJECTED = "token_rejected"
"""Reason of the `IdentityError` (status 401) for a token that belongs to no endpoint."""


class Identity(NamedTuple):
    """The endpoint that a token belongs to."""

    endpoint_id: str
    token_id: str | None = None
    """What a revocation calls the token, if it can be revoked."""
    valid_until: float = math.inf
    """When whoever comes with the token must ask anew, as `time.monotonic` counts."""


class IdentityProvider(Protocol):
    """Knows which endpoint a token belongs to."""

    async def start(self) -> None:
        """Makes ready to resolve. Raises `ConfigError` if the configuration makes that impossible."""

    async def stop(self) -> None:
        """Lets go of what `start` took; `resolve` is not called any more."""

    def scope(self, app_version_name: str) -> str:
        """What a token of this application version is unique in: the version itself, or its application."""
        ...

    def known(self, scope: str, token: str) -> Identity | None:
        """The endpoint of `token` if that can be told without asking anybody, else None.

        Raises `IdentityError` as `resolve` does, if it is known that there is none.
        """
        ...

    async def resolve(self, scope: str, token: str) -> Identity:
        """The endpoint of `token`.

        Raises `IdentityError`: status 401, reason `token_rejected`, if there is none; another status if the
        provider cannot tell. May be cancelled at any time.
        """
        ...


def shortened(token: str) -> str:
    """A token as a log may show it: its first characters, never more than half of it."""
    return token[: min(SHOWN_CHARACTERS, len(token) // 2)] + "…"


def can_tell(status: int) -> bool:
    """Whether the status of a service's answer is about what was asked, and not that it cannot answer now."""
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    )
