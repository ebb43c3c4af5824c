"""Changes the outstanding commands and the results in JetStream, so that replicas may do so side by side."""

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import msgspec
from kaa_gateway.bus.messages import now_ms
from msgspec import UNSET

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.state import State
from kaa_ext.services.cex.commands import (
    ALL_TYPES,
    OUTSTANDING,
    RESULTS,
    Command,
    Delivery,
    Fetched,
    Outstanding,
    Result,
)

COMMANDS_MAX = 32
"""Outstanding commands of an endpoint: the number of pushes that a gateway tells apart."""
COMMANDS_BYTES_MAX = 256 * 1024
"""Payload bytes of the outstanding commands of an endpoint."""

_NOTHING = Outstanding()


class Accepted(NamedTuple):
    """An accepted command as it is stored, and how its endpoint observes its type."""

    command: Command
    is_observed: bool
    is_pushed_with_type: bool


class CommandStore:
    """The two states of a cex instance."""

    def __init__(self, extension: Extension, result_retention_s: float) -> None:
        self._outstanding: State[Outstanding] = extension.state(OUTSTANDING, Outstanding)
        self._results: State[Result] = extension.state(RESULTS, Result, ttl_s=result_retention_s)

    async def outstanding(self, endpoint_id: str) -> Outstanding:
        """Return the outstanding commands of an endpoint."""
        return await self._outstanding.get(endpoint_id) or Outstanding()

    async def all_of(self, endpoint_ids: Iterable[str]) -> list[Outstanding]:
        """Return the outstanding commands of each of these endpoints."""
        found = await self._outstanding.get_all([(each,) for each in endpoint_ids])
        return [each or _NOTHING for each in found]

    async def all_outstanding(self) -> AsyncIterator[tuple[str, Outstanding]]:
        """Yield the outstanding commands of all endpoints, by endpoint ID."""
        async for (endpoint_id,), outstanding in self._outstanding.entries():
            yield endpoint_id, outstanding

    async def result(self, endpoint_id: str, kind: str, number: int) -> Result | None:
        """Return the result of a command, while it is kept."""
        return await self._results.get(endpoint_id, kind, str(number))

    async def accept(self, endpoint_id: str, command: Command) -> Accepted:
        """Store a command. One that its caller repeats stays as it is, except for whom to answer.

        Raise ExtensionError 429 or 413 if the endpoint has too many, or too large, outstanding commands.
        """
        accepted = Accepted(command, True, False)

        def change(before: Outstanding | None) -> Outstanding:
            nonlocal accepted
            outstanding = before or Outstanding()
            others = [each for each in outstanding.commands if not each.is_same(command)]
            repeated = [each for each in outstanding.commands if each.is_same(command)]
            stored = command
            if repeated:
                stored = msgspec.structs.replace(
                    repeated[0], correlation_id=command.correlation_id, reply_to=command.reply_to
                )
            elif len(others) >= COMMANDS_MAX:
                raise ExtensionError(429, f"The endpoint has {COMMANDS_MAX} outstanding commands")
            elif _size([*others, command]) > COMMANDS_BYTES_MAX:
                raise ExtensionError(413, "The outstanding commands of the endpoint are too large")
            accepted = Accepted(
                stored, outstanding.is_observed(command.type), outstanding.is_pushed_with_type(command.type)
            )
            return Outstanding([*others, stored], outstanding.observe)

        await self._outstanding.change(endpoint_id, change=change)
        return accepted

    async def fetch(
        self, endpoint_id: str, kind: str, fetched: Fetched, observe: bool | None
    ) -> list[Command]:
        """Return the outstanding commands of a type, or of ALL_TYPES, and store that the endpoint has got them.

        `observe` is what the endpoint says of later commands of the type, None if nothing. Raise ExtensionError 429 if
        it says so of too many types.
        """
        commands: list[Command] = []

        def change(before: Outstanding | None) -> Outstanding | None:
            nonlocal commands
            outstanding = before or Outstanding()
            now = now_ms()
            commands = [
                each
                for each in outstanding.commands
                if kind in (ALL_TYPES, each.type) and each.deadline > now
            ]
            stored = [
                msgspec.structs.replace(each, fetched=fetched) if each in commands else each
                for each in outstanding.commands
            ]
            observed = outstanding.observe
            if observe is not None and outstanding.is_news(kind, observe):
                observed = {**observed, kind: observe}
                if len(observed) > COMMANDS_MAX:
                    raise ExtensionError(
                        429, f"An endpoint may name at most {COMMANDS_MAX} types of commands"
                    )
            return Outstanding(stored, observed) if stored or observed else None

        await self._outstanding.change(endpoint_id, change=change)
        return commands

    async def note_delivery(self, endpoint_id: str, command: Command, delivery: Delivery) -> None:
        """Store what has become of the push of a command, unless the endpoint has acknowledged an earlier one."""

        def is_news(each: Command) -> bool:
            return each.is_same(command) and not (each.delivery and each.delivery.is_delivered)

        def change(before: Outstanding | None) -> Outstanding | None:
            if before is None:
                return None
            commands = [
                msgspec.structs.replace(each, delivery=delivery) if is_news(each) else each
                for each in before.commands
            ]
            return Outstanding(commands, before.observe)

        if any(map(is_news, (await self.outstanding(endpoint_id)).commands)):
            await self._outstanding.change(endpoint_id, change=change)

    async def keep_result(self, endpoint_id: str, command: Command, result: Result) -> Result:
        """Store the result of a command unless it has one. Return the stored one."""
        kept = await self._results.change(
            endpoint_id, command.type, str(command.id), change=lambda first: first or result
        )
        assert kept is not None
        return kept

    async def remove(self, endpoint_id: str, command: Command) -> None:
        """Remove a command from the outstanding ones."""

        def change(before: Outstanding | None) -> Outstanding | None:
            outstanding = before or Outstanding()
            commands = [each for each in outstanding.commands if not each.is_same(command)]
            return Outstanding(commands, outstanding.observe) if commands or outstanding.observe else None

        await self._outstanding.change(endpoint_id, change=change)


def _size(commands: list[Command]) -> int:
    return sum(len(bytes(each.payload)) for each in commands if each.payload is not UNSET)
