"""epmx, endpoint metadata: 10/EPMP to devices, 15/EME events of changes to other services.

State `metadata`: key (endpoint ID); the value is the metadata as a JSON object.

Source: 10/EPMP "Endpoint Metadata Protocol", 15/EME "Endpoint Metadata Events".
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, TypeVar

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

T = TypeVar("T")
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


_get_request = payloads.decoder(GetRequest)
_metadata = payloads.decoder(Metadata)
_keys = payloads.decoder(list[str])


class Change:
    """A change of the metadata of an endpoint, and what it found and left."""

    __slots__ = ("_change", "after", "before")

    def __init__(self, change: Callable[[Metadata], Metadata]) -> None:
        self._change = change
        self.before: Metadata = {}
        self.after: Metadata = {}

    def __call__(self, metadata: Metadata | None) -> Metadata | None:
        """Return the metadata after the change. Raise ExtensionError 413 if they are too many or too large."""
        before = metadata or {}
        after = self._change(before)
        if len(after) > KEYS_MAX or _size(after) > SIZE_MAX:
            raise ExtensionError(
                413,
                f"An endpoint has at most {KEYS_MAX} metadata keys and {SIZE_MAX // 1024} KiB of metadata",
            )
        self.before, self.after = before, after
        return after or None


class EndpointMetadata:
    """The service, on an extension. Its methods take the requests of one handler, and return their results."""

    def __init__(self, extension: Extension, settings: Settings) -> None:
        self._extension = extension
        self._settings = settings
        self._metadata: State[Metadata] = extension.state(STATE, Metadata)
        self._event_subject = eme.event_subject(extension.name)

    async def keys(self, requests: Sequence[Request]) -> list[list[str] | ExtensionError]:
        """Return the keys that the device may read or write."""
        settings = self._settings

        def keys(request: Request, metadata: Metadata) -> list[str]:
            return [key for key in metadata if settings.readable(key) or settings.writable(key)]

        return await self._read(requests, keys)

    async def get(self, requests: Sequence[Request]) -> list[Metadata | ExtensionError]:
        """Return the keys that the device names, or all that it may read."""
        readable = self._settings.readable

        def get(request: Request, metadata: Metadata) -> Metadata:
            body = _get_request(request.payload)
            if body.keys is UNSET:
                return {key: value for key, value in metadata.items() if readable(key)}
            wanted = _checked(body.keys)
            self._refuse_unless(readable, wanted, "read")
            return {key: metadata[key] for key in wanted if key in metadata}

        return await self._read(requests, get)

    async def update(self, requests: Sequence[Request]) -> list[ExtensionError | None]:
        """Replace all keys that the device may write."""

        def update(request: Request) -> Callable[[Metadata], Metadata]:
            new, writable = self._writable(_metadata(request.payload)), self._settings.writable

            def replace(metadata: Metadata) -> Metadata:
                return {**{key: value for key, value in metadata.items() if not writable(key)}, **new}

            return replace

        return await self._change(requests, update)

    async def update_keys(self, requests: Sequence[Request]) -> list[ExtensionError | None]:
        """Create or change some keys."""

        def update(request: Request) -> Callable[[Metadata], Metadata]:
            new = self._writable(_metadata(request.payload))
            return lambda metadata: {**metadata, **new}

        return await self._change(requests, update)

    async def delete_keys(self, requests: Sequence[Request]) -> list[ExtensionError | None]:
        """Delete some keys. Missing ones are not an error."""

        def delete(request: Request) -> Callable[[Metadata], Metadata]:
            keys = _checked(_keys(request.payload))
            if not keys:
                raise ExtensionError(400, "Expected at least one key")
            self._refuse_unless(self._settings.writable, keys, "write")
            return lambda metadata: {key: value for key, value in metadata.items() if key not in keys}

        return await self._change(requests, delete)

    async def _read(
        self, requests: Sequence[Request], answer: Callable[[Request, Metadata], T]
    ) -> list[T | ExtensionError]:
        """Return the answer to each request, which gets the metadata of its endpoint."""
        found = await self._metadata.get_all([(request.endpoint_id or "",) for request in requests])
        answers: list[T | ExtensionError] = []
        for request, metadata in zip(requests, found, strict=True):
            try:
                _endpoint(request)
                answers.append(answer(request, metadata or {}))
            except ExtensionError as error:
                answers.append(error)
        return answers

    async def _change(
        self, requests: Sequence[Request], change_of: Callable[[Request], Callable[[Metadata], Metadata]]
    ) -> list[ExtensionError | None]:
        """Change the metadata of each request's endpoint atomically, and publish an event if anything changed."""
        errors: list[ExtensionError | None] = [None] * len(requests)
        begun: list[tuple[int, Change, asyncio.Future[Metadata | None]]] = []
        for place, request in enumerate(requests):
            try:
                change = Change(change_of(request))
                begun.append((place, change, self._metadata.submit(_endpoint(request), change=change)))
            except ExtensionError as error:
                errors[place] = error
        for place, change, done in begun:
            try:
                await done
                await self._publish(requests[place], change)
            except ExtensionError as error:
                errors[place] = error
        return errors

    async def _publish(self, request: Request, change: Change) -> None:
        changes = eme.changes(_texts(change.before), _texts(change.after))
        if any(changes.values()):
            event = eme.METADATA_UPDATED.encode(
                correlation_id=request.correlation_id,
                appVersionName=request.app_version_name,
                endpointId=request.endpoint_id,
                originatorReplicaId=self._extension.replica_id,
                **changes,
            )
            await self._extension.publish(self._event_subject, event)

    def _writable(self, body: Metadata) -> Metadata:
        """Return the metadata that a device sends, without white space. Raise ExtensionError 400 or 403."""
        if not body:
            raise ExtensionError(400, "Expected at least one key")
        self._refuse_unless(self._settings.writable, _checked(body), "write")
        return {key: _compact(value) for key, value in body.items()}

    def _refuse_unless(self, allowed: Callable[[str], bool], keys: Iterable[str], what: str) -> None:
        for key in keys:
            if not allowed(key):
                raise ExtensionError(403, f"No {what} access to {key}")


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a metadata service."""
    service = EndpointMetadata(extension, settings)
    extension.batch("/get/keys")(service.keys)
    extension.batch("/get")(service.get)
    extension.batch("/update", respond="errors")(service.update)
    extension.batch("/update/keys", respond="errors")(service.update_keys)
    extension.batch("/delete/keys", respond="errors")(service.delete_keys)


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


def _size(metadata: Metadata) -> int:
    return sum([len(key) + len(bytes(value)) for key, value in metadata.items()])


def _compact(value: msgspec.Raw) -> msgspec.Raw:
    """Return a JSON value without white space."""
    text = bytes(value)
    # Only objects and arrays have white space that means nothing.
    return msgspec.Raw(payloads.compact(text) if text.startswith((b"{", b"[")) else text)


def _texts(metadata: Metadata) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in metadata.items()}
