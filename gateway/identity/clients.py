"""Who is the client: what a connection presents about itself, before any endpoint token.

The principal that comes out scopes client identifiers: two clients with equal identifiers are the same client only if
they have the same principal. An empty principal is an anonymous client.
"""

from __future__ import annotations

import asyncio

ANONYMOUS = ""


def admit_anonymous(client_id: str, user_name: str | None, password: bytes | None) -> asyncio.Future[str]:
    """Admit every client as anonymous, whatever it presents: credentials that nobody has checked prove nothing."""
    admitted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    admitted.set_result(ANONYMOUS)
    return admitted
