"""The routes of commands (12/CIP, 11/CEP)."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromQuery, PathParameter, QueryParameter
from msgspec import UNSET, UnsetType

from kaa_ext.operations import commands
from kaa_ext.rest.parameters import (
    NAME,
    PREFIX,
    Endpoint,
    Limit,
    OptionalJsonBody,
    Start,
    json_body,
)
from kaa_ext.rest.problems import about, responses, wrong
from kaa_ext.rest.services import Services

WAIT_MAX_S = 60
TTL_MAX_MS = 2**31 - 1

Type = Annotated[str, PathParameter(pattern=NAME, description="Type of the command, such as reboot.")]
Await = Annotated[
    float,
    QueryParameter(
        name="awaitTimeout",
        ge=0,
        le=WAIT_MAX_S,
        description="Seconds to wait for the result of the endpoint.",
    ),
]


class CommandResult(msgspec.Struct, rename="camel"):
    """The result of a command. `completedAt` is a UNIX time in milliseconds."""

    status_code: int
    completed_at: int
    reason_phrase: str | None
    app_version: str
    payload: Any | UnsetType = UNSET


class Command(msgspec.Struct, rename="camel"):
    """A command. `deadline` (UNIX time in milliseconds) and `payload` are there while it is outstanding.

    So is `delivery` as soon as the gateway has reported: it says in words whether the endpoint has the command.
    """

    type: str
    id: int
    status: Literal["outstanding", "completed", "expired"]
    result: CommandResult | None
    deadline: int | UnsetType = UNSET
    payload: Any | UnsetType = UNSET
    delivery: str | UnsetType = UNSET


class CommandPage(msgspec.Struct):
    """A page of commands; `next` is the `start` of the next page, null after the last one."""

    commands: list[Command]
    next: int | None


class CommandController(Controller):
    """The routes of commands."""

    path = PREFIX
    tags = ("commands",)

    @post(
        "/endpoints/{endpoint:str}/commands/{type:str}",
        operation_id="invokeCommand",
        summary="Have an endpoint execute a command",
        description="The body is the payload of the command, if it has one. An endpoint that is away gets the command "
        "when it connects.",
        status_code=200,
        operation_class=OptionalJsonBody,
        response_description="The endpoint has sent its result, or the time of the command is over.",
        responses={
            202: ResponseSpec(
                Command,
                generate_examples=False,
                description="The command is outstanding; `Location` is its address.",
            ),
            **responses(413, 415, 429),
        },
    )
    async def invoke_command(
        self,
        request: Request[Any, Any, Any],
        services: NamedDependency[Services],
        endpoint: Endpoint,
        type: Type,  # noqa: A002 - the word of 11/CEP
        await_timeout: Await = 5,
        command_ttl: Annotated[
            int,
            QueryParameter(
                name="commandTtl",
                ge=1,
                le=TTL_MAX_MS,
                description="Milliseconds that the endpoint has for its result.",
            ),
        ] = 60_000,
    ) -> Response[Command]:
        """Invoke a command."""
        payload = await json_body(request)
        with about("body", ""):
            command = await commands.invoke(
                services.session,
                services.instances.cex,
                endpoint,
                type,
                payload or None,
                timeout_s=command_ttl / 1000,
                wait_s=await_timeout,
            )
        if command.is_refused and command.result is not None:
            raise wrong("body", "", command.result.reason_phrase or "", command.result.status_code)
        shown = _shown(command)
        if command.result is not None:
            return Response(shown)
        location = f"{PREFIX}/endpoints/{endpoint}/commands/{type}/{command.id}"
        return Response(shown, status_code=202, headers={"Location": location})

    @get(
        "/endpoints/{endpoint:str}/commands/{type:str}/{id:int}",
        operation_id="getCommand",
        summary="Show a command, or wait for its result",
        response_description="The command as it is now.",
        responses=responses(404),
    )
    async def get_command(
        self,
        services: NamedDependency[Services],
        endpoint: Endpoint,
        type: Type,  # noqa: A002 - as above
        id: Annotated[int, PathParameter(ge=-(2**31), le=2**31 - 1, description="ID of the command.")],  # noqa: A002
        await_timeout: Await = 0,
    ) -> Command:
        """Show a command."""
        agent = services.instances.cex
        command = await commands.get(services.session, agent, endpoint, type, id, wait_s=await_timeout)
        if command is None:
            raise wrong("path", "id", "There is no such command, or its result is no longer kept", 404)
        return _shown(command)

    @get(
        "/endpoints/{endpoint:str}/commands",
        operation_id="listCommands",
        summary="List the commands of an endpoint",
        description="Outstanding commands, the oldest first; or those with a result, which are kept for a day, in the "
        "order of their results.",
        response_description="A page.",
        responses=responses(),
    )
    async def list_commands(
        self,
        services: NamedDependency[Services],
        endpoint: Endpoint,
        status: FromQuery[Literal["outstanding", "completed"]] = "outstanding",
        limit: Limit = 100,
        start: Start = 0,
    ) -> CommandPage:
        """List commands."""
        session, agent = services.session, services.instances.cex
        if status == "completed":
            found, following = await commands.completed(session, agent, endpoint, start, limit)
        else:
            all_ = await commands.outstanding(session, agent, endpoint)
            found = all_[start : start + limit]
            following = start + limit if start + limit < len(all_) else None
        return CommandPage([_shown(each) for each in found], following)


def _shown(command: commands.Command) -> Command:
    result = command.result
    if result is None:
        deadline = UNSET if command.deadline is None else command.deadline
        return Command(
            command.type,
            command.id,
            "outstanding",
            None,
            deadline,
            command.payload,
            command.delivery or UNSET,
        )
    return Command(
        command.type,
        command.id,
        "expired" if result.is_of_expiry else "completed",
        CommandResult(
            result.status_code,
            result.completed_at,
            result.reason_phrase,
            result.app_version_name,
            result.payload,
        ),
    )
