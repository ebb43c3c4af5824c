"""cex, command execution: 12/CIP from callers, 11/CEP to devices.

A command is outstanding until its endpoint has sent a result or its time is over; either way the caller is told. It is
pushed at once, and to an endpoint that was away when it connects, unless the endpoint said `"observe": false`. A
connection is sent a command once, unless it asks for the outstanding ones itself.

State `outstanding`: key (endpoint ID). State `results`, for a limited time: key (endpoint ID, command type, command
ID).

Source: 11/CEP "Command Execution Protocol", 12/CIP "Command Invocation Protocol", 9/ELCE.
"""

import asyncio
import re
from contextlib import suppress
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import structlog
from kaa_gateway.bus.messages import deadline, now_ms
from msgspec import UNSET, Meta, UnsetType
from nats.aio.msg import Msg

from kaa_ext.messages import cip
from kaa_ext.sdk import payloads
from kaa_ext.sdk.connectivity import Connectivity
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.requests import Request
from kaa_ext.sdk.service import Extension
from kaa_ext.sdk.state import State

OUTSTANDING = "outstanding"
RESULTS = "results"

COMMANDS_MAX = 32
"""Outstanding commands of one endpoint: as many pushes as a gateway tells apart."""
COMMANDS_BYTES_MAX = 256 * 1024
"""Payload of the outstanding commands of one endpoint."""
SAME_CONNECTION_MS = 1_000
"""How much later than an endpoint's first message its `connected` event may be made: gateways gather these."""
SCAN_INTERVAL_S = 30.0
"""How often a replica looks for the commands of others, which may have died, to end those whose time is over."""
RETRY_S = 1.0
"""When it looks again after it could not."""
PAUSE_MIN_S = 0.01
CONNECTED_AT_A_TIME = 32
"""Endpoints of one event that are looked after side by side."""

_log: Any = structlog.get_logger("ext.cex")
_TYPE = re.compile(r"[A-Za-z0-9_-]{1,128}")

Int = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
"""Avro's int: what command IDs and status codes are in 12/CIP."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Seconds: for which a command without timeout is outstanding, and for which results are kept."""

    retention: float = 3600.0
    result_retention: float = 24 * 3600.0

    def __post_init__(self) -> None:
        if self.retention <= 0 or self.result_retention <= 0:
            raise ValueError("retention and result-retention: expected a number of seconds above 0")


class CommandRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Payload by which an endpoint asks for its outstanding commands."""

    observe: bool | UnsetType = UNSET


class CommandForEndpoint(msgspec.Struct):
    """A command as an endpoint gets it."""

    id: int
    payload: msgspec.Raw | UnsetType = UNSET


class CommandResult(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What became of a command, by its endpoint."""

    id: Int
    status_code: Int
    reason_phrase: str | UnsetType = UNSET
    payload: msgspec.Raw | UnsetType = UNSET


class Fetched(msgspec.Struct, rename="camel"):
    """When an endpoint was given a command because it asked, and through which gateway."""

    timestamp: int
    gateway_replica_id: str | None


class Command(msgspec.Struct, rename="camel", omit_defaults=True):
    """An outstanding command. Times are UNIX times in milliseconds."""

    type: str
    id: int
    deadline: int
    push_id: str
    correlation_id: str
    reply_to: str = ""
    payload: msgspec.Raw | UnsetType = UNSET
    fetched: Fetched | None = None

    def for_endpoint(self) -> CommandForEndpoint:
        """What the endpoint gets of it."""
        return CommandForEndpoint(self.id, self.payload)


class Outstanding(msgspec.Struct, omit_defaults=True):
    """What an endpoint has to do yet, and the command types of which it has said whether it observes them."""

    commands: list[Command] = []
    observe: dict[str, bool] = {}


class Result(msgspec.Struct, rename="camel", omit_defaults=True):
    """What became of a command. `completed_at` is a UNIX time in milliseconds."""

    status_code: int
    completed_at: int
    app_version_name: str = ""
    reason_phrase: str | None = None
    payload: msgspec.Raw | UnsetType = UNSET


EXPIRED = 408


class CommandExecution:
    """The service, on an extension."""

    def __init__(self, extension: Extension, settings: Settings) -> None:
        self._extension = extension
        self._settings = settings
        self._outstanding: State[Outstanding] = extension.state(OUTSTANDING, Outstanding)
        self._results: State[Result] = extension.state(RESULTS, Result, ttl_s=settings.result_retention)
        self._deadlines: dict[str, int] = {}
        self._waiting_until = 0
        self._sooner = asyncio.Event()

    # ------------------------------------------------------------ callers

    async def invoke(self, message: Msg) -> None:
        """A caller wants a command executed."""
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
            done = await self._results.get(*_result_key(endpoint_id, command))
            if done is not None:
                await self._tell_caller(endpoint_id, command, done)
                return
            if until < now_ms():
                await self._complete(endpoint_id, command, _expired())
                return
            wanted, command = await self._accept(endpoint_id, command)
        except ExtensionError as error:
            command = Command(kind, number, until, "", fields["correlationId"], message.reply)
            refused = Result(error.status_code, now_ms(), reason_phrase=error.reason_phrase)
            await self._tell_caller(endpoint_id, command, refused)
            return
        self._expect(endpoint_id, command.deadline)
        if wanted:
            await self._push(endpoint_id, command)

    async def _accept(self, endpoint_id: str, command: Command) -> tuple[bool, Command]:
        """Keep a command. Whether it may be pushed; and the command, as it was before if the caller has repeated it."""
        kept = command
        wanted = True

        def accept(before: Outstanding | None) -> Outstanding:
            nonlocal kept, wanted
            outstanding = before or Outstanding()
            wanted = outstanding.observe.get(command.type, True)
            others = [each for each in outstanding.commands if not _same(each, command)]
            again = [each for each in outstanding.commands if _same(each, command)]
            kept = command
            if again:
                kept = msgspec.structs.replace(
                    again[0], correlation_id=command.correlation_id, reply_to=command.reply_to
                )
            elif len(others) >= COMMANDS_MAX:
                raise ExtensionError(429, f"The endpoint has {COMMANDS_MAX} outstanding commands")
            elif _size([*others, command]) > COMMANDS_BYTES_MAX:
                raise ExtensionError(413, "The outstanding commands of the endpoint are too large")
            return Outstanding([*others, kept], outstanding.observe)

        await self._outstanding.change(endpoint_id, change=accept)
        return wanted, kept

    async def _tell_caller(self, endpoint_id: str, command: Command, result: Result) -> None:
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

    async def commands(self, request: Request, body: CommandRequest) -> list[CommandForEndpoint]:
        """The outstanding commands of a type."""
        endpoint_id, kind = _endpoint(request), _type(request)
        given: list[Command] = []

        def give(before: Outstanding | None) -> Outstanding | None:
            nonlocal given
            outstanding = before or Outstanding()
            fetched = Fetched(request.timestamp, request.gateway_replica_id)
            now = now_ms()
            given = [each for each in outstanding.commands if each.type == kind and each.deadline > now]
            commands = [
                msgspec.structs.replace(each, fetched=fetched) if each in given else each
                for each in outstanding.commands
            ]
            observe = outstanding.observe
            if isinstance(body.observe, bool) and body.observe != observe.get(kind, True):
                observe = {**observe, kind: body.observe}
                if len(observe) > COMMANDS_MAX:
                    raise ExtensionError(
                        429, f"An endpoint may name at most {COMMANDS_MAX} types of commands"
                    )
            return Outstanding(commands, observe) if commands or observe else None

        await self._outstanding.change(endpoint_id, change=give)
        return [each.for_endpoint() for each in given]

    async def results(self, request: Request, results: list[CommandResult]) -> None:
        """What became of commands. An endpoint may send the same again: it is answered as the first time."""
        endpoint_id, kind = _endpoint(request), _type(request)
        outstanding = await self._outstanding.get(endpoint_id) or Outstanding()
        by_id = {each.id: each for each in outstanding.commands if each.type == kind}
        unknown: list[int] = []
        for sent in results:
            command = by_id.get(sent.id)
            if command is not None:
                await self._complete(endpoint_id, command, _result_of(sent, request.app_version_name))
                continue
            known = await self._results.get(endpoint_id, kind, str(sent.id))
            if known is None:
                unknown.append(sent.id)
            elif known.status_code == EXPIRED and not known.app_version_name:
                raise ExtensionError(410, f"The time of command {sent.id} is over")
        if unknown:
            raise ExtensionError(404, f"Unknown command {unknown[0]}")

    async def _complete(self, endpoint_id: str, command: Command, result: Result) -> None:
        """End a command: keep the result, tell the caller, and only then forget the command.

        In this order a replica that is killed on the way leaves the command outstanding: the endpoint, which has no
        answer, sends its result again, or else the time of the command runs out. The first result that was kept counts.
        """
        kept = await self._results.change(
            *_result_key(endpoint_id, command), change=lambda first: first or result
        )
        assert kept is not None
        if kept is result or kept.status_code != EXPIRED:
            # Replicas end commands side by side: only the one whose word was kept says that the time is over.
            await self._tell_caller(endpoint_id, command, kept)

        def forget(before: Outstanding | None) -> Outstanding | None:
            outstanding = before or Outstanding()
            commands = [each for each in outstanding.commands if not _same(each, command)]
            return Outstanding(commands, outstanding.observe) if commands or outstanding.observe else None

        await self._outstanding.change(endpoint_id, change=forget)

    async def connectivity(self, event: Connectivity) -> None:
        """Endpoints have connected: push what they have not been given on this connection."""
        if not event.connected:
            return
        slots = asyncio.Semaphore(CONNECTED_AT_A_TIME)

        async def look_after(endpoint_id: str) -> None:
            async with slots:
                outstanding = await self._outstanding.get(endpoint_id) or Outstanding()
                for command in outstanding.commands:
                    wanted = outstanding.observe.get(command.type, True) and command.deadline > now_ms()
                    if wanted and not _fetched_on(command.fetched, event):
                        await self._push(endpoint_id, command, event.gateway_replica_id)

        await asyncio.gather(*map(look_after, event.endpoints))

    async def _push(self, endpoint_id: str, command: Command, gateway_replica_id: str | None = None) -> None:
        await self._extension.push(
            endpoint_id,
            f"/command/{command.type}",
            payloads.encode([command.for_endpoint()]),
            gateway_replica_id=gateway_replica_id,
            push_id=command.push_id,
        )

    # ------------------------------------------------------------ expiry

    async def watch_deadlines(self) -> None:
        """End commands whose time is over: those of this replica when it is, those of others some time later."""
        loop = asyncio.get_running_loop()
        next_scan = loop.time()
        while True:
            try:
                if loop.time() >= next_scan:
                    async for (endpoint_id,), outstanding in self._outstanding.entries():
                        for command in outstanding.commands:
                            self._expect(endpoint_id, command.deadline)
                    next_scan = loop.time() + SCAN_INTERVAL_S
                for endpoint_id, at in list(self._deadlines.items()):
                    if at <= now_ms():
                        await self._expire(endpoint_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, commands must not be outstanding for ever
                _log.warning("commands whose time is over are left for later", error=str(error))
                next_scan = loop.time() + RETRY_S
            scan_at = now_ms() + int((next_scan - loop.time()) * 1000)
            self._waiting_until = min(self._deadlines.values(), default=scan_at)
            pause = (min(self._waiting_until, scan_at) - now_ms()) / 1000
            self._sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, PAUSE_MIN_S)):
                    await self._sooner.wait()

    def _expect(self, endpoint_id: str, at: int) -> None:
        """Remember that something of an endpoint runs out then."""
        if at < self._deadlines.get(endpoint_id, at + 1):
            self._deadlines[endpoint_id] = at
            if at < self._waiting_until:
                self._sooner.set()

    async def _expire(self, endpoint_id: str) -> None:
        outstanding = await self._outstanding.get(endpoint_id) or Outstanding()
        self._deadlines.pop(endpoint_id, None)
        for command in outstanding.commands:
            if command.deadline <= now_ms():
                await self._complete(endpoint_id, command, _expired())
            else:
                self._expect(endpoint_id, command.deadline)


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a command execution service."""
    service = CommandExecution(extension, settings)

    @extension.handler("/command/{type}")
    async def command(request: Request, body: CommandRequest) -> list[CommandForEndpoint]:
        return await service.commands(request, body)

    @extension.handler("/result/{type}")
    async def result(request: Request, body: CommandResult | list[CommandResult]) -> None:
        await service.results(request, body if isinstance(body, list) else [body])

    async def watch() -> None:
        extension.spawn(service.watch_deadlines())

    extension.subscribe(cip.request_subject(extension.name), service.invoke, shared=True)
    extension.on_connectivity(service.connectivity)
    extension.on_start(watch)


def _endpoint(request: Request) -> str:
    if request.endpoint_id is None:
        raise ExtensionError(400, "A command needs an endpoint")
    return request.endpoint_id


def _type(request: Request) -> str:
    kind = request.parameters["type"]
    if not _TYPE.fullmatch(kind):
        raise ExtensionError(400, "The type of a command has 1 to 128 letters, digits, _ and -")
    return kind


def _expired() -> Result:
    return Result(EXPIRED, now_ms(), reason_phrase="The endpoint has sent no result in time")


def _result_of(sent: CommandResult, app_version_name: str) -> Result:
    reason_phrase = None if sent.reason_phrase is UNSET else sent.reason_phrase
    return Result(sent.status_code, now_ms(), app_version_name, reason_phrase, sent.payload)


def _result_key(endpoint_id: str, command: Command) -> tuple[str, str, str]:
    return endpoint_id, command.type, str(command.id)


def _same(one: Command, other: Command) -> bool:
    return (one.type, one.id) == (other.type, other.id)


def _size(commands: list[Command]) -> int:
    return sum(len(bytes(each.payload)) for each in commands if each.payload is not UNSET)


def _fetched_on(fetched: Fetched | None, event: Connectivity) -> bool:
    """Whether an endpoint has asked already on the connection of which an event tells."""
    return (
        fetched is not None
        and fetched.gateway_replica_id == event.gateway_replica_id
        and fetched.timestamp >= event.timestamp - SAME_CONNECTION_MS
    )
