"""`kaa-ext command`: sends commands to endpoints and shows their results (12/CIP, 11/CEP)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter, validators
from msgspec import UNSET

from kaa_ext.cli.common import Domain, Nats, check_instance, json_argument
from kaa_ext.cli.exits import FAILED
from kaa_ext.cli.nats_work import run_with_nats
from kaa_ext.sdk.urls import DEFAULT_NATS_URL

if TYPE_CHECKING:
    from kaa_ext.operations.session import Session
    from kaa_ext.services import cex

app = App(name="command", help="Send commands to endpoints, and show their results.")

ANSWER_LATER_S = 5.0
"""Seconds after a command's timeout for the agent's report of it."""

Agent = Annotated[str, Parameter(name="--agent", help="Service instance that sends the commands to devices.")]


@app.command
def send(
    endpoint: str,
    type: str,  # noqa: A002 - the word of 11/CEP
    payload: str | None = None,
    *,
    wait: Annotated[bool, Parameter(negative=())] = False,
    timeout: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 60.0,
    agent: Agent = "cex",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Send a command to an endpoint. An endpoint that is away gets it when it connects.

    Example: kaa-ext command send my-device reboot '{"delay": 5}' --wait

    With --wait the exit code is 0 if the endpoint reports success (2xx), else 1. Until then, lines on standard error
    say whether the command is delivered, and if not, why.

    Parameters
    ----------
    endpoint
        Endpoint ID. With identity `open` it is the token.
    type
        Type of the command, such as reboot.
    payload
        JSON; @FILE reads a file, @- standard input.
    wait
        Wait for the endpoint's result, and print it.
    timeout
        Seconds that the endpoint has for its result.
    """
    content = None if payload is None else json_argument(payload)
    check_instance(agent)

    async def work(connection: Session) -> int:
        from kaa_ext.operations import commands
        from kaa_ext.operations.errors import Unavailable

        wait_s = timeout + ANSWER_LATER_S if wait else 0.0
        command = await commands.invoke(
            connection,
            agent,
            endpoint,
            type,
            content,
            timeout_s=timeout,
            wait_s=wait_s,
            on_delivery=_show_delivery if wait else None,
        )
        if command.result is not None:
            return _show(command.result)
        if wait:
            raise Unavailable(f"{agent} did not answer; command {command.id} may be executed or not")
        print(f"command {command.id} is sent")
        return 0

    return run_with_nats(nats, jetstream_domain, work)


@app.command
def result(
    endpoint: str,
    type: str,  # noqa: A002 - as above
    id: int,  # noqa: A002 - as above
    *,
    agent: Agent = "cex",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Print the result of an earlier command. The exit code is 1 if there is none, or it is an error.

    Parameters
    ----------
    endpoint
        Endpoint ID.
    type
        Type of the command.
    id
        The number that `send` printed.
    """
    check_instance(agent)

    async def work(connection: Session) -> int:
        from kaa_ext.services import cex

        results = await connection.state(agent, cex.RESULTS, cex.Result)
        found = await results.get(endpoint, type, str(id))
        if found is None:
            print("no result")
            return FAILED
        return _show(found)

    return run_with_nats(nats, jetstream_domain, work)


@app.command(name="list")
def list_commands(
    endpoint: str, *, agent: Agent = "cex", nats: Nats = DEFAULT_NATS_URL, jetstream_domain: Domain = None
) -> int:
    """List the outstanding commands of an endpoint, the oldest first: type, number, payload, whether it is delivered.

    Parameters
    ----------
    endpoint
        Endpoint ID.
    """
    check_instance(agent)

    async def work(connection: Session) -> int:
        from kaa_ext.operations import commands

        for command in await commands.outstanding(connection, agent, endpoint):
            payload = "" if command.payload is UNSET else bytes(command.payload).decode()
            print("  ".join(filter(None, (command.type, str(command.id), payload, command.delivery))))
        return 0

    return run_with_nats(nats, jetstream_domain, work)


def _show_delivery(delivery: str) -> None:
    print(f"the command is {delivery}", file=sys.stderr, flush=True)


def _show(result: cex.Result) -> int:
    code = result.status_code
    print(f"{code} {result.reason_phrase}" if result.reason_phrase else code)
    if result.payload is not UNSET and bytes(result.payload):
        print(msgspec.json.format(bytes(result.payload)).decode())
    return 0 if 200 <= code <= 299 else FAILED
