"""What an identity provider is.

What lives here: the interface that resolves an endpoint token (1/KP) to an endpoint, and how a token may
appear in a log. What does not: the providers (`gateway.identity.open`, `gateway.identity.static`), and
waiting for one (`gateway.identity.resolver`).
"""

import math
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

    async def resolve(self, app_version_name: str, token: str) -> Identity:
        """The endpoint of `token` in an application version that is configured.

        Raises `IdentityError`: status 401, reason `token_rejected`, if there is none; another status if the
        provider cannot tell. May be cancelled at any time.
        """
        ...


def shortened(token: str) -> str:
    """A token as a log may show it: its first characters, never more than half of it."""
    return token[: min(SHOWN_CHARACTERS, len(token) // 2)] + "…"
