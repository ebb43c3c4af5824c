"""Asks the provider for configurations, once for each change, and keeps them in memory.

A configuration in memory is what the provider last said, in an answer or in an event of 6/CDTP. It is forgotten after
`KEPT_S`, in case that the provider has changed it without an event, and when NATS was away, because events may be lost.

Source: 6/CDTP "Configuration Data Transport Protocol", consumer.
"""

import asyncio
import math
import time
from collections import OrderedDict
from typing import NamedTuple, TypeAlias

from kaa_ext.messages import cdtp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.targeted import Requester

KEPT_S = 60.0
"""Seconds after which the provider is asked again for a configuration that has not changed."""
CONFIGURATIONS_MAX = 100_000
BYTES_MAX = 64 * 1024 * 1024
"""Configurations, and bytes of them, that are kept; the least recently used are removed."""
OVERHEAD = 512
"""Bytes that a configuration costs beside its content."""
PAYLOAD = b'{"configId":%s,"config":%s}'

Key: TypeAlias = tuple[str, str, str]
"""Application version, endpoint ID and name of a configuration."""


class Configuration(NamedTuple):
    """A configuration of the provider; `content` is a JSON value, None if only the identifier is known."""

    id: str
    content: bytes | None

    def payload(self) -> bytes:
        """Return the payload that gives the configuration to a device."""
        assert self.content is not None
        return PAYLOAD % (payloads.encode(self.id), self.content)


class _Kept(NamedTuple):
    configuration: Configuration
    until: float


class Provider:
    """The configurations of a provider instance."""

    def __init__(self, extension: Extension, instance: str, timeout_s: float) -> None:
        self._extension = extension
        self._subject = cdtp.request_subject(instance)
        self._timeout_s = timeout_s
        self._requester = Requester(extension, "cdtp", "response", cdtp.CONFIG_RESPONSE)
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._size = 0
        self._connection = 0
        self._changed: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When a configuration of an endpoint has changed, if it is not known which, by monotonic time."""
        self._asking: dict[tuple[Key, str | None], asyncio.Task[Configuration]] = {}

    def known(self, key: Key) -> Configuration | None:
        """Return the configuration in memory, or None if the provider must be asked."""
        self._forget_after_a_gap()
        kept = self._kept.get(key)
        if kept is None:
            return None
        changed = self._changed.get(key[:2], -math.inf) if self._changed else -math.inf
        if kept.until < time.monotonic() or kept.until - KEPT_S <= changed:
            self._remove(key)
            return None
        self._kept.move_to_end(key)
        return kept.configuration

    def updated(self, key: Key, configuration: Configuration) -> None:
        """Take note of an event of the provider."""
        for asked in [asked for asked in self._asking if asked[0] == key]:
            # Its answer may be older than the event.
            del self._asking[asked]
        self._keep(key, configuration)

    def changed(self, app_version_name: str, endpoint_id: str) -> None:
        """Take note that a configuration of an endpoint has changed, without knowing which one."""
        key = (app_version_name, endpoint_id)
        for asked in [asked for asked in self._asking if asked[0][:2] == key]:
            del self._asking[asked]
        self._changed.pop(key, None)
        self._changed[key] = time.monotonic()
        if len(self._changed) > CONFIGURATIONS_MAX:
            self._changed.popitem(last=False)

    async def current(self, key: Key, known: str | None) -> Configuration | None:
        """Return the current configuration, or None if its identifier is `known`.

        Raise ExtensionError 502 if the provider fails, 503 or 504 if it does not answer.
        """
        found = self.known(key)
        if found is None or (found.content is None and found.id != known):
            found = await self._ask_once(key, known)
        return None if found.id == known else found

    async def _ask_once(self, key: Key, known: str | None) -> Configuration:
        """Ask the provider, unless the same question is on its way."""
        asking = self._asking.get((key, known))
        if asking is None:
            asking = self._asking[key, known] = asyncio.create_task(self._ask(key, known))
        return await asyncio.shield(asking)

    async def _ask(self, key: Key, known: str | None) -> Configuration:
        ours = asyncio.current_task()
        app_version_name, endpoint_id, name = key
        connection = self._extension.connects
        try:
            response = await self._requester.ask(
                self._subject,
                cdtp.CONFIG_REQUEST,
                self._timeout_s,
                appVersionName=app_version_name,
                endpointId=endpoint_id,
                configId=known,
                configName=name or None,
            )
            found = _configuration(response, known)
            if self._asking.get((key, known)) is ours and connection == self._extension.connects:
                self._keep(key, found)
            return found
        finally:
            if self._asking.get((key, known)) is ours:
                del self._asking[key, known]

    def _keep(self, key: Key, configuration: Configuration) -> None:
        self._forget_after_a_gap()
        self._remove(key)
        self._kept[key] = _Kept(configuration, time.monotonic() + KEPT_S)
        self._size += _size(configuration)
        while len(self._kept) > CONFIGURATIONS_MAX or self._size > BYTES_MAX:
            _, removed = self._kept.popitem(last=False)
            self._size -= _size(removed.configuration)

    def _remove(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= _size(kept.configuration)

    def _forget_after_a_gap(self) -> None:
        if self._connection != self._extension.connects:
            self._connection = self._extension.connects
            self._kept.clear()
            self._size = 0


def _configuration(response: dict[str, object], known: str | None) -> Configuration:
    """Return the configuration of a ConfigResponse. Raise ExtensionError 502 for a failure."""
    config_id, content = response["configId"], response["content"]
    status_code = response["statusCode"]
    assert isinstance(status_code, int)
    if status_code == 404:
        config_id, content = cdtp.ABSENT_ID, cdtp.ABSENT
    elif not (200 <= status_code <= 299 or status_code == 304):
        raise ExtensionError(502, "The provider of configurations has failed")
    if known is not None and not isinstance(content, bytes):
        return Configuration(known, None)
    content_type = cdtp.JSON if status_code == 404 else response["contentType"]
    if not isinstance(config_id, str) or not isinstance(content, bytes) or not isinstance(content_type, str):
        raise ExtensionError(502, "The provider of configurations has sent none")
    try:
        return Configuration(config_id, cdtp.as_json(content_type, content))
    except ValueError as error:
        raise ExtensionError(502, "The provider of configurations has sent text that is not UTF-8") from error


def _size(configuration: Configuration) -> int:
    return len(configuration.content or b"") + OVERHEAD
