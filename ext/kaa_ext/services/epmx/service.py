"""The resources of 10/EPMP for devices, on any store of metadata.

Source: 10/EPMP "Endpoint Metadata Protocol".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from kaa_gateway.bus import subjects
from msgspec import UNSET, UnsetType

from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request
from kaa_ext.sdk.state import State
from kaa_ext.services.epmx import registrations, store
from kaa_ext.services.epmx.metadata import KEY, Change, Metadata, checked_keys, compacted
from kaa_ext.services.epmx.registrations import Registrations
from kaa_ext.services.epmx.remote_store import RemoteStore, asking
from kaa_ext.services.epmx.repository import Repository, serve_repository
from kaa_ext.services.epmx.store import Order, OwnStore, Store, Wanted

T = TypeVar("T")
Access: TypeAlias = Literal["none", "read", "write", "read-write"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The access of devices to metadata keys, and where the metadata are.

    `access` is by key, `default_access` for all other keys. `repository` is the service instance that has the metadata
    (19/EPMMP), which has `repository_timeout` seconds for an answer; without one, they are kept here.
    """

    default_access: Access = "read-write"
    access: dict[str, Access] = {}
    repository: str | None = None
    repository_timeout: float = 5.0

    def __post_init__(self) -> None:
        if not all(map(KEY.fullmatch, self.access)):
            raise ValueError("access: expected metadata keys, of letters, digits and underscores")
        if self.repository is not None and not subjects.NAME.fullmatch(self.repository):
            raise ValueError("repository: expected the name of a service instance")
        if self.repository_timeout <= 0:
            raise ValueError("repository-timeout: expected a number of seconds above 0")

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


class EndpointMetadata:
    """The service, on a store. Its methods take the requests of one handler, and return their results."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    async def keys(self, requests: Sequence[Request]) -> list[list[str] | ExtensionError]:
        """Return the keys that the device may read or write."""
        settings = self._settings
        results, places = _split(requests, _endpoint)
        found = await self._store.keys([endpoint_id for _, endpoint_id in places])
        for (place, _), keys in zip(places, found, strict=True):
            results[place] = (
                keys
                if isinstance(keys, ExtensionError)
                else [key for key in keys if settings.readable(key) or settings.writable(key)]
            )
        return results

    async def get(self, requests: Sequence[Request]) -> list[Metadata | ExtensionError]:
        """Return the keys that the device names, or all that it may read."""
        readable = self._settings.readable

        def wanted(request: Request) -> Wanted:
            body = _get_request(request.payload)
            if body.keys is UNSET:
                return Wanted(_endpoint(request))
            keys = checked_keys(body.keys)
            self._refuse_unless(readable, keys, "read")
            return Wanted(_endpoint(request), keys)

        results, places = _split(requests, wanted)
        # A request for no keys needs none.
        asked = [each for each in places if each[1].keys != []]
        found = await self._store.read([each for _, each in asked])
        for place, _ in places:
            results[place] = {}
        for (place, (_, keys)), metadata in zip(asked, found, strict=True):
            if isinstance(metadata, ExtensionError):
                results[place] = metadata
            elif keys is None:
                results[place] = {key: value for key, value in metadata.items() if readable(key)}
            else:
                results[place] = {key: metadata[key] for key in keys if key in metadata}
        return results

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
            keys = checked_keys(_keys(request.payload))
            if not keys:
                raise ExtensionError(400, "Expected at least one key")
            self._refuse_unless(self._settings.writable, keys, "write")
            return lambda metadata: {key: value for key, value in metadata.items() if key not in keys}

        return await self._change(requests, delete)

    async def _change(
        self, requests: Sequence[Request], change_of: Callable[[Request], Callable[[Metadata], Metadata]]
    ) -> list[ExtensionError | None]:
        """Change the metadata of each request's endpoint atomically."""

        def order(request: Request) -> Order:
            change = Change(change_of(request))
            return Order(_endpoint(request), change, request.app_version_name, request.correlation_id)

        errors, orders = _split(requests, order)
        done = await self._store.change_all([each for _, each in orders])
        for (place, _), failure in zip(orders, done, strict=True):
            errors[place] = failure
        return errors

    def _writable(self, body: Metadata) -> Metadata:
        """Return the metadata that a device sends, without white space. Raise ExtensionError 400 or 403."""
        if not body:
            raise ExtensionError(400, "Expected at least one key")
        self._refuse_unless(self._settings.writable, checked_keys(body), "write")
        return {key: compacted(value) for key, value in body.items()}

    def _refuse_unless(self, allowed: Callable[[str], bool], keys: Iterable[str], what: str) -> None:
        for key in keys:
            if not allowed(key):
                raise ExtensionError(403, f"No {what} access to {key}")


def register(extension: Extension, settings: Settings = Settings()) -> None:  # noqa: B008 - it is immutable
    """Make the extension a metadata service."""
    if settings.repository is None:
        service = EndpointMetadata(settings, _own_store(extension))
    else:
        ask = asking(extension, settings.repository, settings.repository_timeout)
        service = EndpointMetadata(settings, RemoteStore(ask))
    extension.batch("/get/keys")(service.keys)
    extension.batch("/get")(service.get)
    extension.batch("/update", respond="errors")(service.update)
    extension.batch("/update/keys", respond="errors")(service.update_keys)
    extension.batch("/delete/keys", respond="errors")(service.delete_keys)


def _own_store(extension: Extension) -> OwnStore:
    """Return the metadata of this instance, which other services can read and change too."""
    metadata: State[Metadata] = extension.state(store.STATE, Metadata)
    kept = OwnStore(extension.name, extension.replica_id, metadata, extension.publish)
    known = Registrations(extension.state(registrations.STATE, str), kept)
    extension.on_connectivity(known.connectivity)
    extension.on_lifecycle(known.lifecycle)
    serve_repository(extension, Repository(kept, known))
    return kept


def _split(
    requests: Sequence[Request], read: Callable[[Request], T]
) -> tuple[list[Any], list[tuple[int, T]]]:
    """Read requests: return their results, so far the errors of wrong ones, and the others with their places."""
    results: list[Any] = [None] * len(requests)
    good: list[tuple[int, T]] = []
    for place, request in enumerate(requests):
        try:
            good.append((place, read(request)))
        except ExtensionError as error:
            results[place] = error
    return results, good


def _endpoint(request: Request) -> str:
    if request.endpoint_id is None:
        raise ExtensionError(400, "Metadata needs an endpoint")
    return request.endpoint_id
