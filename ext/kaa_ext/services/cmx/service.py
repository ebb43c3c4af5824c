"""Gives devices their configurations, on request and by pushes, and tells other services what they have applied.

Source: 7/CMP "Configuration Management Protocol", 6/CDTP, 9/ELCE.
"""

import asyncio
from collections.abc import Awaitable, Sequence

import msgspec
from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import now_ms
from msgspec import UNSET, UnsetType
from nats.aio.msg import Msg

from kaa_ext.messages import cdtp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.connectivity import Connectivity
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request
from kaa_ext.services.cmx.endpoints import Answered, Applied, Configured, EndpointStore
from kaa_ext.services.cmx.provider import Configuration, Key, Provider
from kaa_ext.services.config_names import canonical_name
from kaa_ext.services.connections import for_each_endpoint, was_on_connection

UNCHANGED = b"{}"
"""The answer to an endpoint that has the current configuration."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """`provider` is the service instance that has the configurations; `provider_timeout` is in seconds.

    With `events_name_configurations`, events of a named configuration have its name as last token of their subject, as
    those of ecr. Without it, the provider is asked at each event which configuration of the endpoint has changed.
    """

    provider: str = "ecr"
    provider_timeout: float = 5.0
    events_name_configurations: bool = True

    def __post_init__(self) -> None:
        if not subjects.NAME.fullmatch(self.provider):
            raise ValueError("provider: expected the name of a service instance")
        if self.provider_timeout <= 0:
            raise ValueError("provider-timeout: expected a number of seconds above 0")


class ConfigRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The payload of an endpoint's request for a configuration."""

    config_id: str | UnsetType = UNSET
    observe: bool | UnsetType = UNSET


class AppliedRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The payload by which an endpoint reports that it has applied a configuration, or could not."""

    config_id: str
    status_code: int | float = 200
    reason_phrase: str | UnsetType = UNSET


_config_request = payloads.decoder(ConfigRequest)


class ConfigurationManagement:
    """The service, on an extension."""

    def __init__(self, extension: Extension, settings: Settings) -> None:
        self._extension = extension
        self._settings = settings
        self._endpoints = EndpointStore(extension)
        self._provider = Provider(extension, settings.provider, settings.provider_timeout)

    # ------------------------------------------------------------ requests of devices

    async def configs(self, requests: Sequence[Request]) -> list[bytes | ExtensionError]:
        """Return the current configuration of each endpoint, or an empty object if it has that already."""
        results: list[bytes | ExtensionError] = [UNCHANGED] * len(requests)
        named: list[tuple[int, str, ConfigRequest]] = []
        for place, request in enumerate(requests):
            try:
                body = _config_request(request.payload)
                _endpoint(request)
                named.append((place, _name(request), body))
            except ExtensionError as error:
                results[place] = error
        stored = await self._endpoints.get_all(
            [(requests[place].app_version_name, requests[place].endpoint_id or "") for place, _, _ in named]
        )
        busy: dict[int, Awaitable[bytes]] = {}
        for (place, name, body), state in zip(named, stored, strict=True):
            if not self._has_current(requests[place], name, body, state.get(name)):
                busy[place] = self._config(requests[place], name, body)
        for place, done in zip(
            busy, await asyncio.gather(*busy.values(), return_exceptions=True), strict=True
        ):
            if isinstance(done, BaseException) and not isinstance(done, ExtensionError):
                raise done
            results[place] = done
        return results

    def _has_current(
        self, request: Request, name: str, body: ConfigRequest, stored: Configured | None
    ) -> bool:
        """Return whether an endpoint has the current configuration, and there is nothing new to store about it."""
        if body.config_id is UNSET or body.observe is not UNSET or stored is None:
            return False
        if stored.applied_id != body.config_id:
            return False
        current = self._provider.known((request.app_version_name, request.endpoint_id or "", name))
        return current is not None and current.id == body.config_id

    async def _config(self, request: Request, name: str, body: ConfigRequest) -> bytes:
        """Return the current configuration, or an empty object if the endpoint has it already."""
        app_version, endpoint = request.app_version_name, _endpoint(request)
        if isinstance(body.observe, bool):
            # Stored before the provider is asked: a later change is then pushed, an earlier one is in the answer.
            await self._endpoints.note(app_version, endpoint, name, observe=body.observe)
        known = None if body.config_id is UNSET else body.config_id
        current = await self._provider.current((app_version, endpoint, name), known)
        if current is None:
            assert known is not None
            await self._endpoints.note_present(app_version, endpoint, name, known)
            return UNCHANGED
        answered = Answered(current.id, request.timestamp, request.gateway_replica_id)
        await self._endpoints.note(app_version, endpoint, name, answered=answered)
        return current.payload()

    async def applied(self, request: Request, body: AppliedRequest) -> None:
        """Store what an endpoint reports of applying a configuration, and publish the event of 6/CDTP."""
        endpoint, name = _endpoint(request), _name(request)
        status_code = int(body.status_code)
        if status_code != body.status_code or not 100 <= status_code <= 599:
            raise ExtensionError(400, "Expected a status code, 100 to 599 - at statusCode")
        reason_phrase = None if body.reason_phrase is UNSET else body.reason_phrase
        applied = Applied(body.config_id, now_ms(), status_code, reason_phrase)
        await self._endpoints.note(request.app_version_name, endpoint, name, applied=applied)
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

    # ------------------------------------------------------------ pushes to devices

    async def updated(self, message: Msg) -> None:
        """Push a configuration that has changed."""
        key, configuration = self._of_event(message)
        if self._settings.events_name_configurations:
            await self._push(*key, configuration)
            return
        app_version_name, endpoint_id, _ = key
        stored = await self._endpoints.get(app_version_name, endpoint_id)
        for name, configured in {cdtp.DEFAULT_NAME: Configured(), **stored}.items():
            had = {configured.answered_id, configured.pushed.config_id if configured.pushed else None}
            current = await self._provider.current(
                (app_version_name, endpoint_id, name), configured.applied_id
            )
            if current is not None and current.id != cdtp.ABSENT_ID and current.id not in had:
                await self._push(app_version_name, endpoint_id, name, current)

    def note_updated(self, message: Msg) -> None:
        """Take note of a configuration that has changed."""
        key, configuration = self._of_event(message)
        if self._settings.events_name_configurations:
            self._provider.updated(key, configuration)
        else:
            self._provider.changed(*key[:2])

    def _of_event(self, message: Msg) -> tuple[Key, Configuration]:
        """Return the configuration of an event. Raise ValueError for text that is not UTF-8."""
        event = cdtp.CONFIG_UPDATED.decode(message.data)
        base = cdtp.updated_subject(self._settings.provider)
        name = message.subject.removeprefix(base).removeprefix(".")
        content = cdtp.as_json(event["contentType"], event["content"])
        return (event["appVersionName"], event["endpointId"], name), Configuration(event["configId"], content)

    async def connectivity(self, event: Connectivity) -> None:
        """Push the configurations that endpoints missed before they connected."""
        if not event.connected:
            return

        async def push_missed(endpoint_id: str, app_version_name: str) -> None:
            await self._push_missed(event, endpoint_id, app_version_name)

        await for_each_endpoint(event, push_missed)

    async def _push_missed(self, event: Connectivity, endpoint_id: str, app_version_name: str) -> None:
        stored = await self._endpoints.get(app_version_name, endpoint_id)
        for name, configured in {cdtp.DEFAULT_NAME: Configured(), **stored}.items():
            answered = configured.answered
            if configured.observe is False or (
                answered and was_on_connection(event, answered.gateway_replica_id, answered.timestamp)
            ):
                continue
            try:
                current = await self._provider.current(
                    (app_version_name, endpoint_id, name), configured.applied_id
                )
            except ExtensionError:
                # The endpoint may request it, and gets it at the next change or connection.
                return
            if current is not None and current.id != cdtp.ABSENT_ID:
                await self._push(app_version_name, endpoint_id, name, current, event.gateway_replica_id)

    async def _push(
        self,
        app_version_name: str,
        endpoint_id: str,
        name: str,
        configuration: Configuration,
        gateway_replica_id: str | None = None,
    ) -> None:
        """Push a configuration, through one gateway replica if it is named."""
        push_id = await self._endpoints.note_push(
            app_version_name,
            endpoint_id,
            name,
            configuration.id,
            even_if_answered=gateway_replica_id is not None,
        )
        if push_id is not None:
            await self._extension.push(
                endpoint_id,
                f"/config/json/{name}" if name else "/config/json",
                configuration.payload(),
                app_version_name=app_version_name,
                gateway_replica_id=gateway_replica_id,
                push_id=push_id,
            )


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a configuration management service."""
    service = ConfigurationManagement(extension, settings)

    extension.batch("/config/json")(service.configs)
    extension.batch("/config/json/{name}")(service.configs)

    @extension.handler("/applied/json", respond="errors")
    @extension.handler("/applied/json/{name}", respond="errors")
    async def applied(request: Request, body: AppliedRequest) -> None:
        await service.applied(request, body)

    for subject in (cdtp.updated_subject(settings.provider), cdtp.updated_subject(settings.provider, "*")):
        extension.subscribe(subject, service.note_updated)
        extension.subscribe(subject, service.updated, shared=True)
    extension.on_connectivity(service.connectivity)


def _endpoint(request: Request) -> str:
    if request.endpoint_id is None:
        raise ExtensionError(400, "A configuration needs an endpoint")
    return request.endpoint_id


def _name(request: Request) -> str:
    return canonical_name(request.parameters.get("name") or request.config_name)
