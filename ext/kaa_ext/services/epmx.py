"""epmx, endpoint metadata: 10/EPMP to devices, 15/EME events of changes to other services.

State `metadata`: key (endpoint ID); the value is the metadata as a JSON object.

Source: 10/EPMP "Endpoint Metadata Protocol", 15/EME "Endpoint Metadata Events".
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from kaa_ext.messages import eme
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request
from kaa_ext.sdk.state import State

STATE = "metadata"

KEYS_MAX = 1000
"""Metadata keys of one endpoint."""
SIZE_MAX = 512 * 1024
"""Bytes of the metadata of one endpoint."""

_KEY = re.compile(r"[a-zA-Z0-9_]+")

Metadata: TypeAlias = dict[str, msgspec.Raw]
Access: TypeAlias = Literal["none", "read", "write", "read-write"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The access of devices to metadata keys: `access` by key, `default_access` for all other keys."""

    default_access: Access = "read-write"
    access: dict[str, Access] = {}

    def __post_init__(self) -> None:
        if not all(map(_KEY.fullmatch, self.access)):
            raise ValueError("access: expected metadata keys, of letters, digits and underscores")

    def readable(self, key: str) -> bool:
        """Return whether a device may read a key."""
        return "read" in self.access.get(key, self.default_access)

    def writable(self, key: str) -> bool:
        """Return whether a device may create, change and delete a key."""
        return "write" in self.access.get(key, self.default_access)


class GetRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The payload of a request for metadata; without `keys` it means all."""

    keys: list[str] | UnsetType = UNSET


class EndpointMetadata:
    """The service, on an extension."""

    def __init__(self, extension: Extension, settings: Settings) -> None:
        self._extension = extension
        self._settings = settings
        self._metadata: State[Metadata] = extension.state(STATE, Metadata)

    async def keys(self, request: Request) -> list[str]:
        """Return the keys that the device may read or write."""
        settings = self._settings
        return [key for key in await self._read(request) if settings.readable(key) or settings.writable(key)]

    async def get(self, request: Request, body: GetRequest) -> Metadata:
        """Return the keys that the device names, or all that it may read."""
        metadata = await self._read(request)
        if body.keys is UNSET:
            return {key: value for key, value in metadata.items() if self._settings.readable(key)}
        wanted = _checked(body.keys)
        self._refuse_unless(self._settings.readable, wanted, "read")
        return {key: metadata[key] for key in wanted if key in metadata}

    async def update(self, request: Request, body: Metadata) -> None:
        """Replace all keys that the device may write."""
        new = self._writable(body)

        def replace(metadata: Metadata) -> Metadata:
            kept = {key: value for key, value in metadata.items() if not self._settings.writable(key)}
            return {**kept, **new}

        await self._change(request, replace)

    async def update_keys(self, request: Request, body: Metadata) -> None:
        """Create or change some keys."""
        new = self._writable(body)
        await self._change(request, lambda metadata: {**metadata, **new})

    async def delete_keys(self, request: Request, body: list[str]) -> None:
        """Delete some keys. Missing ones are not an error."""
        keys = _checked(body)
        if not keys:
            raise ExtensionError(400, "Expected at least one key")
        self._refuse_unless(self._settings.writable, keys, "write")
        await self._change(
            request, lambda metadata: {key: value for key, value in metadata.items() if key not in keys}
        )

    async def _read(self, request: Request) -> Metadata:
        return await self._metadata.get(_endpoint(request)) or {}

    async def _change(self, request: Request, change: Callable[[Metadata], Metadata]) -> None:
        """Change the metadata atomically, and publish an event if anything changed."""
        endpoint_id = _endpoint(request)
        before: Metadata = {}
        after: Metadata = {}

        def apply(metadata: Metadata | None) -> Metadata | None:
            nonlocal before, after
            before = metadata or {}
            after = change(before)
            if (
                len(after) > KEYS_MAX
                or sum(len(key) + len(bytes(each)) for key, each in after.items()) > SIZE_MAX
            ):
                raise ExtensionError(
                    413,
                    f"An endpoint has at most {KEYS_MAX} metadata keys and {SIZE_MAX // 1024} KiB of metadata",
                )
            return after or None

        await self._metadata.change(endpoint_id, change=apply)
        changes = eme.changes(_texts(before), _texts(after))
        if any(changes.values()):
            event = eme.METADATA_UPDATED.encode(
                correlation_id=request.correlation_id,
                appVersionName=request.app_version_name,
                endpointId=endpoint_id,
                originatorReplicaId=self._extension.replica_id,
                **changes,
            )
            await self._extension.publish(eme.event_subject(self._extension.name), event)

    def _writable(self, body: Metadata) -> Metadata:
        """Return the metadata that a device sends, without white space. Raise ExtensionError 400 or 403."""
        if not body:
            raise ExtensionError(400, "Expected at least one key")
        self._refuse_unless(self._settings.writable, _checked(body), "write")
        return {key: msgspec.Raw(payloads.compact(bytes(value))) for key, value in body.items()}

    def _refuse_unless(self, allowed: Callable[[str], bool], keys: Iterable[str], what: str) -> None:
        for key in keys:
            if not allowed(key):
                raise ExtensionError(403, f"No {what} access to {key}")


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a metadata service."""
    service = EndpointMetadata(extension, settings)

    @extension.handler("/get/keys")
    async def keys(request: Request) -> list[str]:
        return await service.keys(request)

    @extension.handler("/get")
    async def get(request: Request, body: GetRequest) -> Metadata:
        return await service.get(request, body)

    @extension.handler("/update", respond="errors")
    async def update(request: Request, body: Metadata) -> None:
        await service.update(request, body)

    @extension.handler("/update/keys", respond="errors")
    async def update_keys(request: Request, body: Metadata) -> None:
        await service.update_keys(request, body)

    @extension.handler("/delete/keys", respond="errors")
    async def delete_keys(request: Request, body: list[str]) -> None:
        await service.delete_keys(request, body)


def _endpoint(request: Request) -> str:
    if request.endpoint_id is None:
        raise ExtensionError(400, "Metadata needs an endpoint")
    return request.endpoint_id


def _checked(keys: Iterable[str]) -> list[str]:
    """Return the keys as a list. Raise ExtensionError 400 unless they are distinct and as 10/EPMP requires."""
    seen: dict[str, None] = {}
    for key in keys:
        if not _KEY.fullmatch(key):
            raise ExtensionError(400, "A metadata key has letters, digits and underscores, and at least one")
        if key in seen:
            raise ExtensionError(400, f"Key {key} is there twice")
        seen[key] = None
    return list(seen)


def _texts(metadata: Metadata) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in metadata.items()}
