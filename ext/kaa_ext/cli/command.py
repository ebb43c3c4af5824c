"""`kaa-ext command`: sends commands to endpoints and shows their results (12/CIP, 11/CEP)."""

import asyncio
import random
from typing import Annotated

import msgspec
from cyclopts import App, Parameter, validators
from msgspec import UNSET
from nats.aio.msg import Msg

from kaa_ext.cli.common import FAILED, Nats, check_instance, json_argument, run_command, servers
from kaa_ext.cli.session import CommandError, Session, session
from kaa_ext.messages import cip
from kaa_ext.sdk import payloads
from kaa_ext.sdk.targeted import is_no_responders
from kaa_ext.sdk.urls import DEFAULT_NATS_URL
from kaa_ext.services import cex

app = App(name="command", help="Send commands to endpoints, and show their results.")

ACCEPT_TIMEOUT_S = 10.0
"""Seconds for the agent to accept a command."""
POLL_S = 0.05
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
) -> int:
    """Send a command to an endpoint. An endpoint that is away gets it when it connects.

    Example: kaa-ext command send my-device reboot '{"delay": 5}' --wait

    With --wait the exit code is 0 if the endpoint reports success (2xx), else 1.

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
    urls = servers(nats)
    check_instance(agent)

    async def work() -> int:
        async with session(urls) as connection:
            return await _send(connection, agent, endpoint, type, content, timeout, wait)

    return run_command(work())


@app.command
def result(
    endpoint: str,
    type: str,  # noqa: A002 - as above
    id: int,  # noqa: A002 - as above
    *,
    agent: Agent = "cex",
    nats: Nats = DEFAULT_NATS_URL,
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
    urls = servers(nats)
    check_instance(agent)

    async def work() -> int:
        async with session(urls) as connection:
            results = await connection.state(agent, cex.RESULTS, cex.Result)
            found = await results.get(endpoint, type, str(id))
        if found is None:
            print("no result")
            return FAILED
        payload = None if found.payload is UNSET else bytes(found.payload)
        return _show(found.status_code, found.reason_phrase, payload)

    return run_command(work())


async def _send(
    connection: Session,
    agent: str,
    endpoint: str,
    kind: str,
    payload: bytes | None,
    timeout_s: float,
    wait: bool,
) -> int:
    number = random.randrange(1, 2**31)
    if payload is not None:
        payload = payloads.compact(payload)
    answers: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = connection.client.new_inbox()
    await connection.client.subscribe(inbox, cb=answers.put)
    outstanding = await connection.state(agent, cex.OUTSTANDING, cex.Outstanding)
    datum = cip.COMMAND_REQUEST.encode(
        timeout=timeout_s,
        endpointId=endpoint,
        commandType=kind,
        commandId=number,
        payload=payload,
    )
    await connection.client.publish(cip.request_subject(agent), datum, inbox)

    async def accepted() -> None:
        while True:
            commands = (await outstanding.get(endpoint) or cex.Outstanding()).commands
            if any((each.type, each.id) == (kind, number) for each in commands):
                return
            await asyncio.sleep(POLL_S)

    answering = asyncio.ensure_future(answers.get())
    accepting = asyncio.ensure_future(accepted())
    try:
        await asyncio.wait(
            {answering, accepting}, timeout=ACCEPT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if accepting.done():
            accepting.result()
            if not wait:
                print(f"command {number} is sent")
                return 0
            await asyncio.wait({answering}, timeout=timeout_s + ANSWER_LATER_S)
        if not answering.done():
            raise CommandError(f"{agent} did not answer; command {number} may be executed or not")
        message = answering.result()
    finally:
        for task in (answering, accepting):
            task.cancel()
    if is_no_responders(message):
        raise CommandError(f"no replica of {agent} is running; `kaa-ext run {agent}` starts one")
    fields = cip.COMMAND_RESULT.decode(message.data)
    return _show(fields["statusCode"], fields["reasonPhrase"], fields["payload"])


def _show(status_code: int, reason_phrase: str | None, payload: bytes | None) -> int:
    print(f"{status_code} {reason_phrase}" if reason_phrase else status_code)
    if payload:
        print(msgspec.json.format(payload).decode())
    return 0 if 200 <= status_code <= 299 else FAILED
