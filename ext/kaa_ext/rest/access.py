"""Guards the REST API: a request needs the token, or, if none is set, must come from this machine.

The demo page, the description of the API and health are open, because they hold no secrets. Without a token, requests
of pages of other sites in a browser on this machine are refused as well.
"""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kaa_gateway.access import BearerToken, is_local

from kaa_ext.rest.problems import ProblemError, send_problem

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

OPEN = frozenset({"/demo", "/health/live", "/health/ready", "/openapi.json"})


class Access:
    """The access rule around an application. `token` is None if none is set."""

    def __init__(self, app: "ASGIApp", token: BearerToken | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or answer 401 or 403."""
        if scope["path"] not in OPEN:
            try:
                await self._check(scope)
            except ProblemError as error:
                await send_problem(send, error)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: "Scope") -> None:
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is not None:
            await self._token.refresh()
            if not self._token.is_in(fields.get("authorization", "")):
                raise ProblemError(
                    401, "The REST API needs its bearer token", headers={"WWW-Authenticate": "Bearer"}
                )
            return
        if not _is_local(scope, fields):
            raise ProblemError(
                403,
                "Without --token-file, the REST API answers requests from its own machine only: to the name localhost, "
                "over HTTP/1.1, not through a proxy, and not from the page of another site",
            )


def _is_local(scope: "Scope", fields: dict[str, str]) -> bool:
    host = fields.get("host", "")
    client = scope["client"]
    try:
        name = urlsplit(f"//{host}").hostname or ""
        origin = urlsplit(fields["origin"]).netloc if "origin" in fields else host
    except ValueError:
        return False
    return (
        client is not None
        and origin == host
        and is_local(client[0], name, is_http_11=scope["http_version"] != "1.0", fields=fields)
    )
