"""cmx, configuration management: 7/CMP to devices, 6/CDTP to the provider that has their configurations.

New configurations are pushed to endpoints unless they said `"observe": false`; to those that were away, when they
connect, unless they have applied it already. A connection is sent a configuration once.

State `endpoints`: key (application version, endpoint ID); what each endpoint has asked for, been sent and applied.

Source: 7/CMP "Configuration Management Protocol", 6/CDTP, 9/ELCE.
"""

import asyncio
from typing import Any
from uuid import uuid4

import msgspec
from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import now_ms
from msgspec import UNSET, UnsetType
from nats.aio.msg import Msg

from kaa_ext.messages import cdtp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.connectivity import Connectivity
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.requests import Request
from kaa_ext.sdk.service import Extension
from kaa_ext.sdk.state import State
from kaa_ext.sdk.targeted import Requester
from kaa_ext.services.config_names import checked_name

STATE = "endpoints"

NAMES_MAX = 64
"""Configurations of one endpoint that are kept track of."""
SAME_CONNECTION_MS = 1_000
"""How much later than an endpoint's first message its `connected` event may be made: gateways gather these."""
CONNECTED_AT_A_TIME = 32
"""Endpoints of one event that are looked after side by side."""
PAIR = b'{"configId":%s,"config":%s}'


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """`provider` is the service instance that has the configurations; `provider_timeout` is in seconds."""

    provider: str = "ecr"
    provider_timeout: float = 5.0

    def __post_init__(self) -> None:
        if not subjects.NAME.fullmatch(self.provider):
            raise ValueError("provider: expected the name of a service instance")
        if self.provider_timeout <= 0:
            raise ValueError("provider-timeout: expected a number of seconds above 0")


class ConfigRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Payload of a request for a configuration."""

    config_id: str | UnsetType = UNSET
    observe: bool | UnsetType = UNSET


class AppliedRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Payload by which an endpoint says what became of a configuration."""

    config_id: str
    status_code: int | float = 200
    reason_phrase: str | UnsetType = UNSET


class Applied(msgspec.Struct, rename="camel", omit_defaults=True):
    """What an endpoint has said of a configuration. Times are UNIX times in milliseconds."""

    config_id: str
    timestamp: int
    status_code: int = 200
    reason_phrase: str | None = None


class Answered(msgspec.Struct, rename="camel"):
    """The configuration that an endpoint was last told when it asked, and through which gateway."""

    config_id: str
    timestamp: int
    gateway_replica_id: str | None


class Pushed(msgspec.Struct, rename="camel"):
    """The configuration that an endpoint was last pushed, and as which push."""

    config_id: str
    push_id: str


class Configured(msgspec.Struct, rename="camel", omit_defaults=True):
    """What is known of an endpoint and one of its configurations."""

    observe: bool | None = None
    applied: Applied | None = None
    answered: Answered | None = None
    pushed: Pushed | None = None


EndpointState = dict[str, Configured]
"""By the names of its configurations; that of the default one is empty."""


class ConfigurationManagement:
    """The service, on an extension."""

    def __init__(self, extension: Extension, settings: Settings) -> None:
        self._extension = extension
        self._settings = settings
        self._endpoints: State[EndpointState] = extension.state(STATE, EndpointState)
        self._provider = Requester(extension, "cdtp", "response", cdtp.CONFIG_RESPONSE)

    # ------------------------------------------------------------ devices ask

    async def config(self, request: Request, body: ConfigRequest) -> bytes:
        """The current configuration, or an empty object if the endpoint has that already."""
        endpoint, name = _endpoint(request), _name(request)
        if isinstance(body.observe, bool):
            # Before the provider is asked: what changes from now on is pushed, or is in its answer.
            await self._note(request.app_version_name, endpoint, name, observe=body.observe)
        known = None if body.config_id is UNSET else body.config_id
        current = await self._current(request.app_version_name, endpoint, name, known)
        if current is None:
            assert known is not None
            await self._note(request.app_version_name, endpoint, name, implied=known)
            return b"{}"
        config_id, content = current
        answered = Answered(config_id, request.timestamp, request.gateway_replica_id)
        await self._note(request.app_version_name, endpoint, name, answered=answered)
        return PAIR % (payloads.encode(config_id), content)

    async def applied(self, request: Request, body: AppliedRequest) -> None:
        """Keep what became of a configuration, and tell others."""
        endpoint, name = _endpoint(request), _name(request)
        status_code = int(body.status_code)
        if status_code != body.status_code or not 100 <= status_code <= 599:
            raise ExtensionError(400, "Expected a status code, 100 to 599 - at statusCode")
        reason_phrase = None if body.reason_phrase is UNSET else body.reason_phrase
        applied = Applied(body.config_id, now_ms(), status_code, reason_phrase)
        await self._note(request.app_version_name, endpoint, name, applied=applied)
        event = cdtp.CONFIG_APPLIED.encode(
            correlation_id=request.correlation_id,
            appVersionName=request.app_version_name,
            endpointId=endpoint,
            configId=body.config_id,
            originatorReplicaId=self._extension.replica_id,
            statusCode=status_code,
            reasonPhrase=reason_phrase,
        )
        await self._extension.publish(cdtp.applied_subject(self._extension.name, name), event)

    # ------------------------------------------------------------ devices are told

    async def updated(self, message: Msg) -> None:
        """A configuration has changed: push it."""
        event = cdtp.CONFIG_UPDATED.decode(message.data)
        base = cdtp.updated_subject(self._settings.provider)
        name = message.subject.removeprefix(base).removeprefix(".")
        if event["contentType"] != cdtp.JSON:
            return
        await self._push(
            event["appVersionName"], event["endpointId"], name, event["configId"], event["content"]
        )

    async def connectivity(self, event: Connectivity) -> None:
        """Endpoints have connected: push what they have missed."""
        if not event.connected:
            return
        slots = asyncio.Semaphore(CONNECTED_AT_A_TIME)

        async def look_after(endpoint_id: str, app_version_name: str) -> None:
            async with slots:
                await self._connected(event, endpoint_id, app_version_name)

        await asyncio.gather(*(look_after(*endpoint) for endpoint in event.endpoints.items()))

    async def _connected(self, event: Connectivity, endpoint_id: str, app_version_name: str) -> None:
        configurations = await self._endpoints.get(app_version_name, endpoint_id) or {}
        for name, configured in {cdtp.DEFAULT_NAME: Configured(), **configurations}.items():
            if configured.observe is False or _answered_on(configured.answered, event):
                continue
            applied = configured.applied.config_id if configured.applied else cdtp.ABSENT_ID
            try:
                current = await self._current(app_version_name, endpoint_id, name, applied)
            except ExtensionError:
                # It will ask; or be told at the next change, or when it connects again.
                return
            if current is not None and current[0] != cdtp.ABSENT_ID:
                await self._push(
                    app_version_name, endpoint_id, name, *current, gateway_replica_id=event.gateway_replica_id
                )

    async def _push(
        self,
        app_version_name: str,
        endpoint_id: str,
        name: str,
        config_id: str,
        content: bytes,
        gateway_replica_id: str | None = None,
    ) -> None:
        """Push a configuration, to one gateway replica if it is named.

        What was pushed before is pushed under the same ID again: a connection which has it does not get it twice.
        """
        wanted = True
        push_id = ""

        def note(before: EndpointState | None) -> EndpointState | None:
            nonlocal wanted, push_id
            configured = (before or {}).get(name, Configured())
            wanted = configured.observe is not False and (
                gateway_replica_id is not None or _answered_id(configured) != config_id
            )
            if not wanted:
                return before
            if configured.pushed is None or configured.pushed.config_id != config_id:
                configured = msgspec.structs.replace(
                    configured, pushed=Pushed(config_id, str(uuid4())), answered=None
                )
            assert configured.pushed is not None
            push_id = configured.pushed.push_id
            return _with(before, name, configured)

        await self._endpoints.change(app_version_name, endpoint_id, change=note)
        if wanted:
            await self._extension.push(
                endpoint_id,
                f"/config/json/{name}" if name else "/config/json",
                PAIR % (payloads.encode(config_id), content),
                app_version_name=app_version_name,
                gateway_replica_id=gateway_replica_id,
                push_id=push_id,
            )

    # ------------------------------------------------------------ what both need

    async def _current(
        self, app_version_name: str, endpoint_id: str, name: str, known: str | None
    ) -> tuple[str, bytes] | None:
        """Identifier and content of the current configuration, or None if the identifier is the known one."""
        response = await self._provider.ask(
            cdtp.request_subject(self._settings.provider),
            cdtp.CONFIG_REQUEST,
            self._settings.provider_timeout,
            appVersionName=app_version_name,
            endpointId=endpoint_id,
            configId=known,
            configName=name or None,
        )
        config_id, content = response["configId"], response["content"]
        if response["statusCode"] == 404:
            config_id, content = cdtp.ABSENT_ID, cdtp.ABSENT
        elif not (200 <= response["statusCode"] <= 299 or response["statusCode"] == 304):
            raise ExtensionError(502, "The provider of configurations has failed")
        if known is not None and (content is None or config_id == known):
            return None
        if config_id is None or content is None or response["contentType"] != cdtp.JSON:
            raise ExtensionError(502, "The provider of configurations has sent none that is JSON")
        return config_id, content

    async def _note(
        self,
        app_version_name: str,
        endpoint_id: str,
        name: str,
        *,
        implied: str | None = None,
        **changes: Any,
    ) -> None:
        """Keep something about an endpoint and a configuration; `implied` is one that it says it has."""

        def note(before: EndpointState | None) -> EndpointState | None:
            configured = (before or {}).get(name)
            if configured is None and len(before or {}) >= NAMES_MAX:
                raise ExtensionError(429, f"An endpoint has at most {NAMES_MAX} configurations")
            configured = msgspec.structs.replace(configured or Configured(), **changes)
            has = configured.applied.config_id if configured.applied else cdtp.ABSENT_ID
            if implied is not None and implied != has:
                configured = msgspec.structs.replace(configured, applied=Applied(implied, now_ms()))
            return _with(before, name, configured)

        await self._endpoints.change(app_version_name, endpoint_id, change=note)


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a configuration management service."""
    service = ConfigurationManagement(extension, settings)

    @extension.handler("/config/json")
    @extension.handler("/config/json/{name}")
    async def config(request: Request, body: ConfigRequest) -> bytes:
        return await service.config(request, body)

    @extension.handler("/applied/json")
    @extension.handler("/applied/json/{name}")
    async def applied(request: Request, body: AppliedRequest) -> None:
        await service.applied(request, body)

    for subject in (cdtp.updated_subject(settings.provider), cdtp.updated_subject(settings.provider, "*")):
        extension.subscribe(subject, service.updated, shared=True)
    extension.on_connectivity(service.connectivity)


def _endpoint(request: Request) -> str:
    if request.endpoint_id is None:
        raise ExtensionError(400, "A configuration needs an endpoint")
    return request.endpoint_id


def _name(request: Request) -> str:
    name = request.parameters.get("name") or request.config_name
    return checked_name(name) if name else cdtp.DEFAULT_NAME


def _answered_id(configured: Configured) -> str | None:
    return configured.answered.config_id if configured.answered else None


def _answered_on(answered: Answered | None, event: Connectivity) -> bool:
    """Whether an endpoint has asked already on the connection of which an event tells."""
    return (
        answered is not None
        and answered.gateway_replica_id == event.gateway_replica_id
        and answered.timestamp >= event.timestamp - SAME_CONNECTION_MS
    )


def _with(before: EndpointState | None, name: str, configured: Configured) -> EndpointState:
    return {**(before or {}), name: configured}
