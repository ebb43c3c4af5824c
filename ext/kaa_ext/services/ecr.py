"""ecr, the endpoint configuration registry: a 6/CDTP provider that keeps configurations in JetStream.

`Registry` sets configurations; `kaa-ext config` uses it on its own, no replica of ecr need run for that. Running
replicas answer the requests of consumers such as cmx.

State `configurations`: key (application version, endpoint ID), for a named configuration with the name as third part.

Source: 6/CDTP "Configuration Data Transport Protocol", provider.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from kaa_gateway.bus.messages import now_ms
from nats.aio.msg import Msg

from kaa_ext.messages import cdtp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.state import State
from kaa_ext.services.config_names import canonical_name

STATE = "configurations"


class Configuration(msgspec.Struct, rename="camel", omit_defaults=True):
    """A configuration of an endpoint. `updated_at` is a UNIX time in milliseconds.

    `content` is the JSON value that devices get: of content that is not JSON, the text, or Base64 (see `cdtp.as_json`).
    """

    config_id: str
    content: msgspec.Raw
    updated_at: int
    content_type: str = cdtp.JSON

    @property
    def data(self) -> bytes:
        """The content itself."""
        return cdtp.from_json(self.content_type, bytes(self.content))


class Registry:
    """The configurations of a provider instance. `publish` sends a message to a subject."""

    def __init__(
        self,
        provider: str,
        state: State[Configuration],
        publish: Callable[[str, bytes], Awaitable[None]],
    ) -> None:
        self._provider = provider
        self._state = state
        self._publish = publish

    async def get(self, app_version_name: str, endpoint_id: str, name: str) -> Configuration | None:
        """Return the configuration of this name, which may be cdtp.DEFAULT_NAME; None if there is none."""
        return await self._state.get(*_key(app_version_name, endpoint_id, canonical_name(name)))

    async def set(
        self,
        app_version_name: str,
        endpoint_id: str,
        name: str,
        content: bytes,
        content_type: str = cdtp.JSON,
    ) -> Configuration:
        """Store a configuration and publish its event. Raise ExtensionError 400 if `content` is not of its type.

        The identifier is a digest of the content. Setting the same content again publishes the event again.
        """
        name = canonical_name(name)
        if cdtp.is_json(content_type):
            content = payloads.compact(content)
        try:
            value = cdtp.as_json(content_type, content)
        except ValueError as error:
            raise ExtensionError(400, "Text must be UTF-8") from error
        digest = hashlib.blake2b(content, digest_size=16)
        if content_type != cdtp.JSON:
            digest.update(content_type.encode())
        config_id = digest.hexdigest()
        configuration = Configuration(config_id, msgspec.Raw(value), now_ms(), content_type)
        await self._state.put(*_key(app_version_name, endpoint_id, name), value=configuration)
        event = cdtp.CONFIG_UPDATED.encode(
            appVersionName=app_version_name,
            endpointId=endpoint_id,
            configId=config_id,
            contentType=content_type,
            content=content,
        )
        await self._publish(cdtp.updated_subject(self._provider, name), event)
        return configuration

    async def response(self, request: dict[str, Any]) -> bytes:
        """Return the ConfigResponse to a ConfigRequest, which is given by its fields."""
        answer: dict[str, Any] = {
            "correlation_id": request["correlationId"],
            "appVersionName": request["appVersionName"],
            "endpointId": request["endpointId"],
            "contentType": cdtp.JSON,
        }
        try:
            name = canonical_name(request["configName"])
            found = await self.get(request["appVersionName"], request["endpointId"], name)
        except ExtensionError as error:
            answer |= {"statusCode": error.status_code, "reasonPhrase": error.reason_phrase}
            return cdtp.CONFIG_RESPONSE.encode(**answer)
        config_id = found.config_id if found else cdtp.ABSENT_ID
        if request["configId"] == config_id:
            answer["statusCode"] = 304
        else:
            content = found.data if found else cdtp.ABSENT
            answer |= {"statusCode": 200, "configId": config_id, "content": content}
            if found:
                answer["contentType"] = found.content_type
        return cdtp.CONFIG_RESPONSE.encode(**answer)


def register(extension: Extension) -> None:
    """Make the extension a provider of configurations."""
    registry = Registry(extension.name, extension.state(STATE, Configuration), extension.publish)

    async def answer(message: Msg) -> None:
        request = cdtp.CONFIG_REQUEST.decode(message.data)
        if message.reply and not extension.has_expired(request):
            await extension.publish(message.reply, await registry.response(request))

    extension.subscribe(cdtp.request_subject(extension.name), answer, shared=True)


def _key(app_version_name: str, endpoint_id: str, name: str) -> tuple[str, ...]:
    return (app_version_name, endpoint_id, name) if name else (app_version_name, endpoint_id)
