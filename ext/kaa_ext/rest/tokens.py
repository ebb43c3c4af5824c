"""The routes of endpoint tokens (16/ECAP)."""

from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter
from msgspec import UNSET, Meta, UnsetType

from kaa_ext.operations import credentials
from kaa_ext.rest.parameters import BELOW_ZERO, NAME, PREFIX, TIME_MAX, Limit, Start
from kaa_ext.rest.problems import about, responses
from kaa_ext.rest.services import Services
from kaa_ext.services.auth.credentials import Status

Time = Annotated[int, Meta(gt=BELOW_ZERO, le=TIME_MAX)]


class NewToken(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The endpoint token to add. Without `token` it is a random one; without `expires`, it is valid for ever.

    `expires` is a UNIX time in milliseconds.
    """

    application: Annotated[str, Meta(pattern=NAME)]
    endpoint_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~-]{1,256}(?!\n)$")]
    token: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_~-]{8,256}(?!\n)$")] | UnsetType = UNSET
    expires: Time | UnsetType = UNSET


class AddedToken(msgspec.Struct):
    """A token that was added, and its ID. The token cannot be shown again."""

    id: str
    token: str


class EndpointToken(msgspec.Struct, rename="camel"):
    """An endpoint token; `shown` is its beginning. `expires` is a UNIX time in milliseconds, null for never."""

    id: str
    application: str
    endpoint_id: str
    shown: str
    status: Status
    expires: int | None


class TokenPage(msgspec.Struct):
    """A page of tokens; `next` is the `start` of the next page, null after the last one."""

    tokens: list[EndpointToken]
    next: int | None


class TokenController(Controller):
    """The routes of endpoint tokens."""

    path = PREFIX
    tags = ("endpoint tokens",)

    @post(
        "/endpoint-tokens",
        operation_id="addToken",
        summary="Add an endpoint token",
        response_description="The token is valid.",
        responses=responses(409, 413, 415),
    )
    async def add_token(self, services: NamedDependency[Services], data: JSONBody[NewToken]) -> AddedToken:
        """Add a token."""
        registry = await credentials.registry(services.session, services.instances.auth)
        with about("body", "token"):
            token, id_ = await registry.add_token(
                data.application,
                data.endpoint_id,
                data.token or None,
                expires=None if data.expires is UNSET else data.expires,
            )
        return AddedToken(id_, token)

    @get(
        "/endpoint-tokens",
        operation_id="listTokens",
        summary="List the endpoint tokens",
        description="In the order of their last changes.",
        response_description="A page.",
        responses=responses(),
    )
    async def list_tokens(
        self,
        services: NamedDependency[Services],
        limit: Limit = 100,
        start: Start = 0,
    ) -> TokenPage:
        """List tokens."""
        registry = await credentials.registry(services.session, services.instances.auth)
        page = await registry.tokens.page(start=start, limit=limit)
        shown = [
            EndpointToken(
                token.id, application, token.endpoint_id, token.shown, token.current_status, token.expires
            )
            for (application, _), token in page.entries
        ]
        return TokenPage(shown, page.next)

    @delete(
        "/endpoint-tokens/{id:str}",
        operation_id="revokeToken",
        summary="Revoke an endpoint token",
        description="Gateways end its sessions at once. The token stays in the list as Revoked.",
        response_description="The token is revoked.",
        responses=responses(404),
    )
    async def revoke_token(
        self,
        services: NamedDependency[Services],
        id: Annotated[  # noqa: A002 - the word of the answers
            str, PathParameter(pattern=r"^t-[0-9a-f]{12}(?!\n)$", description="ID of the token.")
        ],
    ) -> None:
        """Revoke a token."""
        registry = await credentials.registry(services.session, services.instances.auth)
        with about("path", "id"):
            await registry.set_status(id, "Revoked")
