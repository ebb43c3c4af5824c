"""Takes commands from callers, gives them to devices, and tells callers of the results.

Source: 11/CEP "Command Execution Protocol", 12/CIP "Command Invocation Protocol".
"""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Annotated
from uuid import uuid4

import msgspec
from kaa_gateway.bus.messages import deadline, now_ms
from msgspec import UNSET, Meta, UnsetType
from nats.aio.msg import Msg

from kaa_ext.messages import cip
from kaa_ext.sdk import payloads
from kaa_ext.sdk.connectivity import Connectivity
from kaa_ext.sdk.errors import ExtensionError, StateUnavailable
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.push_outcome import UNKNOWN, PushOutcome
from kaa_ext.sdk.push_receipt import PushReceipt
from kaa_ext.sdk.requests import Request
from kaa_ext.services.cex.commands import ALL_TYPES, EXPIRED, Command, Delivery, Fetched, Outstanding, Result
from kaa_ext.services.cex.expiry import DeadlineWatch
from kaa_ext.services.cex.store import CommandStore
from kaa_ext.services.connections import for_each_endpoint, was_on_connection

_TYPE = re.compile(r"[A-Za-z0-9_-]{1,128}")
ALL_TYPES_PATH = "/command"
"""The resource of the commands of all types; that of one type is below it."""

FIRST_REPORT_S = 3.0
"""Seconds after which it is stored that a device has not acknowledged a command yet."""

Int = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
"""An Avro int, as command IDs and status codes are in 12/CIP."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """How long a command without timeout is outstanding, and how long results are kept, in seconds."""

    retention: float = 3600.0
    result_retention: float = 24 * 3600.0

    def __post_init__(self) -> None:
        if self.retention <= 0 or self.result_retention <= 0:
            raise ValueError("retention and result-retention: expected a number of seconds above 0")


class CommandRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The payload of an endpoint's request for its outstanding commands."""

    observe: bool | UnsetType = UNSET


_command_request = payloads.decoder(CommandRequest)


class CommandForEndpoint(msgspec.Struct):
    """A command in a payload for its endpoint. It has its type where the resource path does not name one."""

    id: int
    type: str | UnsetType = UNSET
    payload: msgspec.Raw | UnsetType = UNSET


class CommandResult(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A result in a payload of an endpoint."""

    id: Int
    status_code: Int
    reason_phrase: str | UnsetType = UNSET
    payload: msgspec.Raw | UnsetType = UNSET


class CommandExecution:
    """The service, on an extension."""

    def __init__(self, extension: Extension, settings: Settings) -> None:
        self._extension = extension
        self._settings = settings
        self._store = CommandStore(extension, settings.result_retention)
        self._deadlines = DeadlineWatch(self._store, self._end_expired)

    async def start(self) -> None:
        """Begin to watch the deadlines."""
        self._extension.spawn(self._deadlines.run())

    # ------------------------------------------------------------ callers

    async def invoke(self, message: Msg) -> None:
        """Accept the command of a caller and push it; or answer it if it is refused, done or expired."""
        fields = cip.COMMAND_REQUEST.decode(message.data)
        endpoint_id, kind, number = fields["endpointId"], fields["commandType"], fields["commandId"]
        until = deadline(fields) or now_ms() + int(self._settings.retention * 1000)
        try:
            if not _TYPE.fullmatch(kind):
                raise ExtensionError(400, "The type of a command has 1 to 128 letters, digits, _ and -")
            payload = UNSET if fields["payload"] is None else msgspec.Raw(payloads.compact(fields["payload"]))
            command = Command(
                kind, number, until, str(uuid4()), fields["correlationId"], message.reply, payload
            )
            done = await self._store.result(endpoint_id, kind, number)
            if done is not None:
                await self._answer_caller(endpoint_id, command, done)
                return
            if until < now_ms():
                await self._end_expired(endpoint_id, command)
                return
            accepted = await self._store.accept(endpoint_id, command)
        except ExtensionError as error:
            command = Command(kind, number, until, "", fields["correlationId"], message.reply)
            refused = Result(error.status_code, now_ms(), reason_phrase=error.reason_phrase)
            await self._answer_caller(endpoint_id, command, refused)
            return
        self._deadlines.note(endpoint_id, accepted.command.deadline)
        if accepted.is_observed:
            await self._push(endpoint_id, accepted.command, with_type=accepted.is_pushed_with_type)

    async def _answer_caller(self, endpoint_id: str, command: Command, result: Result) -> None:
        if not command.reply_to:
            return
        datum = cip.COMMAND_RESULT.encode(
            correlation_id=command.correlation_id,
            appVersionName=result.app_version_name,
            endpointId=endpoint_id,
            commandType=command.type,
            commandId=command.id,
            statusCode=result.status_code,
            reasonPhrase=result.reason_phrase,
            payload=None if result.payload is UNSET else bytes(result.payload),
        )
        await self._extension.publish(command.reply_to, datum)

    # ------------------------------------------------------------ devices

    async def commands(self, requests: Sequence[Request]) -> list[list[CommandForEndpoint] | ExtensionError]:
        """Return the outstanding commands of each endpoint, of the type in the resource path or of all types."""
        found = await self._store.all_of([request.endpoint_id or "" for request in requests])
        results: list[list[CommandForEndpoint] | ExtensionError] = [[] for _ in requests]
        busy: dict[int, Awaitable[list[CommandForEndpoint]]] = {}
        for place, (request, outstanding) in enumerate(zip(requests, found, strict=True)):
            try:
                _endpoint(request)
                kind, body = _type(request), _command_request(request.payload)
            except ExtensionError as error:
                results[place] = error
                continue
            if request.request_id is None:
                busy[place] = self._push_outstanding(request, outstanding)
            elif isinstance(body.observe, bool) or any(
                kind in (ALL_TYPES, each.type) for each in outstanding.commands
            ):
                busy[place] = self._fetch(request, body)
        for place, done in zip(
            busy, await asyncio.gather(*busy.values(), return_exceptions=True), strict=True
        ):
            if isinstance(done, BaseException) and not isinstance(done, ExtensionError):
                raise done
            results[place] = done
        return results

    async def _push_outstanding(self, request: Request, outstanding: Outstanding) -> list[CommandForEndpoint]:
        """Push the outstanding commands of a type to an endpoint that waits for pushes instead of an answer."""
        kind = _type(request)
        for each in outstanding.commands:
            if kind in (ALL_TYPES, each.type):
                await self._push(
                    _endpoint(request), each, request.gateway_replica_id, with_type=kind == ALL_TYPES
                )
        return []

    async def _fetch(self, request: Request, body: CommandRequest) -> list[CommandForEndpoint]:
        """Return the outstanding commands of a type, and store that the endpoint has got them."""
        fetched = Fetched(request.timestamp, request.gateway_replica_id)
        observe = body.observe if isinstance(body.observe, bool) else None
        kind = _type(request)
        commands = await self._store.fetch(_endpoint(request), kind, fetched, observe)
        return [_for_endpoint(each, with_type=kind == ALL_TYPES) for each in commands]

    async def results(self, request: Request, results: list[CommandResult]) -> None:
        """Complete commands with the results of their endpoint. A repeated result gets the answer of the first.

        Raise ExtensionError 410 for a command whose time is over, 404 for an unknown one.
        """
        endpoint_id, kind = _endpoint(request), _type(request)
        outstanding = await self._store.outstanding(endpoint_id)
        by_id = {each.id: each for each in outstanding.commands if each.type == kind}
        unknown: list[int] = []
        for sent in results:
            command = by_id.get(sent.id)
            if command is not None:
                await self._complete(endpoint_id, command, _result_of(sent, request.app_version_name))
                continue
            known = await self._store.result(endpoint_id, kind, sent.id)
            if known is None:
                unknown.append(sent.id)
            elif known.is_of_expiry:
                raise ExtensionError(410, f"The time of command {sent.id} is over")
        if unknown:
            raise ExtensionError(404, f"Unknown command {unknown[0]}")

    async def connectivity(self, event: Connectivity) -> None:
        """Push the outstanding commands of endpoints that have connected and have not fetched them."""
        if not event.connected:
            return

        async def push_outstanding(endpoint_id: str, app_version_name: str) -> None:
            outstanding = await self._store.outstanding(endpoint_id)
            for command in outstanding.commands:
                if not outstanding.is_observed(command.type) or command.deadline <= now_ms():
                    continue
                fetched = command.fetched
                if fetched is None or not was_on_connection(
                    event, fetched.gateway_replica_id, fetched.timestamp
                ):
                    await self._push(
                        endpoint_id,
                        command,
                        event.gateway_replica_id,
                        with_type=outstanding.is_pushed_with_type(command.type),
                    )

        await for_each_endpoint(event, push_outstanding)

    async def _push(
        self,
        endpoint_id: str,
        command: Command,
        gateway_replica_id: str | None = None,
        *,
        with_type: bool,
    ) -> None:
        """Push a command to the resource of its type, or `with_type` to that of all types."""
        time_left_s = (command.deadline - now_ms()) / 1000
        if time_left_s <= 0:
            return
        receipt = await self._extension.push(
            endpoint_id,
            ALL_TYPES_PATH if with_type else f"{ALL_TYPES_PATH}/{command.type}",
            payloads.encode([_for_endpoint(command, with_type=with_type)]),
            gateway_replica_id=gateway_replica_id,
            push_id=command.push_id,
            timeout_s=time_left_s,
            receipt=True,
        )
        self._extension.spawn(self._note_delivery(endpoint_id, command, receipt, time_left_s))

    async def _note_delivery(
        self, endpoint_id: str, command: Command, receipt: PushReceipt, time_left_s: float
    ) -> None:
        """Store what has become of a push. A device may take long, so that is stored as well."""
        outcome = await receipt.outcome(min(time_left_s, FIRST_REPORT_S))
        await self._store_outcome(endpoint_id, command, outcome)
        if not receipt.is_over and time_left_s > FIRST_REPORT_S:
            outcome = await receipt.outcome(time_left_s - FIRST_REPORT_S)
            await self._store_outcome(endpoint_id, command, outcome)

    async def _store_outcome(self, endpoint_id: str, command: Command, outcome: PushOutcome) -> None:
        if outcome.status == UNKNOWN:
            return
        delivery = Delivery(outcome.status, now_ms(), outcome.reason)
        with suppress(StateUnavailable):
            await self._store.note_delivery(endpoint_id, command, delivery)

    # ------------------------------------------------------------ the end of a command

    async def _complete(self, endpoint_id: str, command: Command, result: Result) -> None:
        """End a command: store the result, answer the caller, and only then remove the command.

        In this order, a replica that dies on the way leaves the command outstanding: the endpoint, which has no answer,
        repeats its result, or the time of the command ends. The first stored result counts.
        """
        kept = await self._store.keep_result(endpoint_id, command, result)
        if kept is result or kept.status_code != EXPIRED:
            # Several replicas may end a command: only the one whose result was stored tells of the expiry.
            await self._answer_caller(endpoint_id, command, kept)
        await self._store.remove(endpoint_id, command)

    async def _end_expired(self, endpoint_id: str, command: Command) -> None:
        reason = "The endpoint has sent no result in time"
        if command.delivery_in_words:
            reason = f"{reason} (the command was {command.delivery_in_words})"
        await self._complete(endpoint_id, command, Result(EXPIRED, now_ms(), reason_phrase=reason))


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a command execution service."""
    service = CommandExecution(extension, settings)

    extension.batch(ALL_TYPES_PATH)(service.commands)
    extension.batch(f"{ALL_TYPES_PATH}/{{type}}")(service.commands)

    @extension.handler("/result/{type}", respond="errors")
    async def result(request: Request, body: CommandResult | list[CommandResult]) -> None:
        await service.results(request, body if isinstance(body, list) else [body])

    extension.subscribe(cip.request_subject(extension.name), service.invoke, shared=True)
    extension.on_connectivity(service.connectivity)
    extension.on_start(service.start)


def _endpoint(request: Request) -> str:
    if request.endpoint_id is None:
        raise ExtensionError(400, "A command needs an endpoint")
    return request.endpoint_id


def _type(request: Request) -> str:
    """Return the command type in a resource path, or ALL_TYPES for the path without one."""
    kind = request.parameters.get("type")
    if kind is None:
        return ALL_TYPES
    if not _TYPE.fullmatch(kind):
        raise ExtensionError(400, "The type of a command has 1 to 128 letters, digits, _ and -")
    return kind


def _for_endpoint(command: Command, *, with_type: bool) -> CommandForEndpoint:
    return CommandForEndpoint(command.id, command.type if with_type else UNSET, command.payload)


def _result_of(sent: CommandResult, app_version_name: str) -> Result:
    reason_phrase = None if sent.reason_phrase is UNSET else sent.reason_phrase
    return Result(sent.status_code, now_ms(), app_version_name, reason_phrase, sent.payload)
