"""Commands to endpoints (12/CIP, 11/CEP): invoking, waiting for the result, listing."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
from kaa_gateway.bus.messages import now_ms
from msgspec import UNSET, UnsetType
from nats.aio.msg import Msg

from kaa_ext.messages import cip
from kaa_ext.operations.errors import Unavailable
from kaa_ext.operations.session import Session
from kaa_ext.sdk import payloads
from kaa_ext.sdk.buckets import changes_subject
from kaa_ext.sdk.state import joined
from kaa_ext.sdk.targeted import is_no_responders
from kaa_ext.services import cex

ACCEPT_TIMEOUT_S = 10.0
"""Seconds for the agent to accept a command."""
POLL_S = 0.05


class Command(NamedTuple):
    """A command; `result` is None while it is outstanding. `deadline` is known while it is, and is UNIX time in ms."""

    type: str
    id: int
    result: cex.Result | None
    deadline: int | None = None
    payload: msgspec.Raw | UnsetType = UNSET
    delivery: str = ""
    """Whether the endpoint has the command, in words; empty if that is not known."""

    @property
    def is_refused(self) -> bool:
        """Return whether the agent has refused the command: no endpoint has a part in the result."""
        result = self.result
        return result is not None and not result.app_version_name and not result.is_of_expiry


async def invoke(
    session: Session,
    agent: str,
    endpoint_id: str,
    kind: str,
    payload: bytes | None,
    *,
    timeout_s: float,
    wait_s: float,
    on_delivery: Callable[[str], None] | None = None,
) -> Command:
    """Have an endpoint execute a command within `timeout_s`, and wait up to `wait_s` for the result.

    An endpoint that is away gets the command when it connects. While waiting, `on_delivery` is called with words that
    say whether the endpoint has the command, each time that these change. Raise ExtensionError 400 if the payload is
    not JSON, Unavailable if the agent does not run or does not accept the command.
    """
    number = random.randrange(1, 2**31)
    if payload is not None:
        payload = payloads.compact(payload)
    answers: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = session.client.new_inbox()
    outstanding = await session.state(agent, cex.OUTSTANDING, cex.Outstanding)
    subscription = await session.client.subscribe(inbox, cb=answers.put)
    datum = cip.COMMAND_REQUEST.encode(
        timeout=timeout_s,
        endpointId=endpoint_id,
        commandType=kind,
        commandId=number,
        payload=payload,
    )
    await session.client.publish(cip.request_subject(agent), datum, inbox)

    async def accepted() -> cex.Command:
        while True:
            commands = (await outstanding.get(endpoint_id) or cex.Outstanding()).commands
            for each in commands:
                if (each.type, each.id) == (kind, number):
                    return each
            await asyncio.sleep(POLL_S)

    answering = asyncio.ensure_future(answers.get())
    accepting = asyncio.ensure_future(accepted())
    reporting = asyncio.ensure_future(
        _report_delivery(session, agent, endpoint_id, kind, number, on_delivery)
        if on_delivery
        else asyncio.sleep(0)
    )
    try:
        await asyncio.wait(
            {answering, accepting}, timeout=ACCEPT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if accepting.done() and not answering.done():
            accepting.result()
            await asyncio.wait({answering}, timeout=wait_s)
        if answering.done():
            return _answered(agent, kind, number, answering.result())
        if accepting.done():
            return _outstanding(accepting.result())
        raise Unavailable(f"{agent} did not answer; command {number} may be executed or not")
    finally:
        for task in (answering, accepting, reporting):
            task.cancel()
        await asyncio.wait({reporting})
        await subscription.unsubscribe()


async def _report_delivery(
    session: Session, agent: str, endpoint_id: str, kind: str, number: int, report: Callable[[str], None]
) -> None:
    """Report whether the endpoint has an outstanding command, each time that this changes; never returns."""
    outstanding = await session.state(agent, cex.OUTSTANDING, cex.Outstanding)
    changes: asyncio.Queue[cex.Outstanding] = asyncio.Queue()
    # The message of a change has the value. A read at once may find the one before: JetStream has yet to store it.
    receive = outstanding.listener(lambda _, value: changes.put_nowait(value))

    async def note(message: Msg) -> None:
        receive(message)

    subject = changes_subject(f"{agent}-{cex.OUTSTANDING}", joined((endpoint_id,)))
    subscription = await session.client.subscribe(subject, cb=note)
    said = ""
    try:
        value = await outstanding.get(endpoint_id) or cex.Outstanding()
        while True:
            for each in value.commands:
                if (each.type, each.id) == (kind, number) and each.delivery_in_words not in ("", said):
                    said = each.delivery_in_words
                    report(said)
            value = await changes.get()
    finally:
        await subscription.unsubscribe()


async def get(
    session: Session, agent: str, endpoint_id: str, kind: str, number: int, *, wait_s: float = 0.0
) -> Command | None:
    """Return a command, None if it is unknown. Wait up to `wait_s` for the result of an outstanding one."""
    outstanding = await session.state(agent, cex.OUTSTANDING, cex.Outstanding)
    results = await session.state(agent, cex.RESULTS, cex.Result)
    key = (endpoint_id, kind, str(number))
    changed = asyncio.Event()

    async def note(message: Msg) -> None:
        changed.set()

    subject = changes_subject(f"{agent}-{cex.RESULTS}", joined(key))
    subscription = await session.client.subscribe(subject, cb=note) if wait_s else None
    try:
        # A result is stored before its command is removed, so this order misses neither.
        commands = (await outstanding.get(endpoint_id) or cex.Outstanding()).commands
        found = await results.get(*key)
        command = next((each for each in commands if (each.type, each.id) == (kind, number)), None)
        if found is None and command is not None and wait_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await changed.wait()
                    # The message of the change comes here before JetStream has stored the result.
                    while (found := await results.get(*key)) is None:
                        await asyncio.sleep(POLL_S)
    finally:
        if subscription is not None:
            await subscription.unsubscribe()
    if found is not None:
        return Command(kind, number, found)
    return None if command is None else _outstanding(command)


async def outstanding(session: Session, agent: str, endpoint_id: str) -> list[Command]:
    """Return the outstanding commands of an endpoint, the oldest first."""
    state = await session.state(agent, cex.OUTSTANDING, cex.Outstanding)
    return [_outstanding(each) for each in (await state.get(endpoint_id) or cex.Outstanding()).commands]


async def completed(
    session: Session, agent: str, endpoint_id: str, start: int, limit: int
) -> tuple[list[Command], int | None]:
    """Return a page of the commands of an endpoint that have a result, and where the next page starts."""
    state = await session.state(agent, cex.RESULTS, cex.Result)
    page = await state.page(endpoint_id, start=start, limit=limit)
    return [Command(kind, int(number), result) for (_, kind, number), result in page.entries], page.next


def _outstanding(command: cex.Command) -> Command:
    return Command(
        command.type, command.id, None, command.deadline, command.payload, command.delivery_in_words
    )


def _answered(agent: str, kind: str, number: int, message: Msg) -> Command:
    """Return the command with the result in a message of its agent."""
    if is_no_responders(message):
        raise Unavailable(f"no replica of {agent} is running; `kaa-ext run {agent}` starts one")
    fields = cip.COMMAND_RESULT.decode(message.data)
    payload = UNSET if fields["payload"] is None else msgspec.Raw(fields["payload"])
    result = cex.Result(
        fields["statusCode"], now_ms(), fields["appVersionName"], fields["reasonPhrase"], payload
    )
    return Command(kind, number, result)
