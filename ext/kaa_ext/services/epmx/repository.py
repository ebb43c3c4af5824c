"""The repository of metadata for other services: it answers their requests from the metadata that epmx keeps.

No metadata key is restricted for services; the keys must be as 10/EPMP requires. An endpoint without metadata is not an
error.

Source: 19/EPMMP "Endpoint Metadata Management Protocol", repository.
"""

from collections.abc import Awaitable, Callable

import msgspec
from kaa_gateway.bus.messages import Exchange

from kaa_ext.messages import epmmp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError, StateUnavailable
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.targeted import Fields, serve
from kaa_ext.services.epmx.json_patch import patched
from kaa_ext.services.epmx.metadata import Change, Metadata, checked_keys, compacted, version_of
from kaa_ext.services.epmx.registrations import Registrations
from kaa_ext.services.epmx.store import Order, OwnStore, Wanted

ANY_VERSION = "*"

_value = payloads.decoder(msgspec.Raw)


class Repository:
    """Reads and changes the metadata of a store for other services. Its methods take and return fields of messages."""

    def __init__(self, store: OwnStore, registrations: Registrations) -> None:
        self._store = store
        self._registrations = registrations

    async def get(self, request: Fields) -> Fields:
        """Return the metadata of an endpoint, or some keys of it."""
        endpoint_id, include = request["endpointId"], request["include"]
        metadata = await self._metadata(endpoint_id)
        (app_version_name,) = await self._registrations.app_versions([endpoint_id])
        shown = {key: metadata[key] for key in include if key in metadata} if include else metadata
        return {
            "statusCode": 200,
            "eTag": version_of(metadata),
            "payload": payloads.encode(shown) if request["includeMetadata"] else None,
            "appVersionName": app_version_name,
        }

    async def keys(self, request: Fields) -> Fields:
        """Return the metadata keys of an endpoint."""
        return {"statusCode": 200, "keys": list(await self._metadata(request["endpointId"]))}

    async def patch(self, request: Fields) -> Fields:
        """Apply a JSON Patch to the metadata of an endpoint, if they are those that the request names."""
        expected = _versions(request["ifMatch"])

        def change(metadata: Metadata) -> Metadata:
            if expected is not None and version_of(metadata) not in expected:
                raise ExtensionError(412, "The metadata are not those that the request names")
            after = patched(metadata, request["patch"])
            checked_keys(key for key in after if key not in metadata)
            return after

        await self._change([Order(request["endpointId"], Change(change), "")])
        return {"statusCode": 200}

    async def update_key(self, request: Fields) -> Fields:
        """Set a metadata key of an endpoint."""
        await self._change([_update(request)])
        return {"statusCode": 200}

    async def update_keys(self, request: Fields) -> Fields:
        """Set metadata keys of endpoints. One after the other: if one fails, others may have been set."""
        await self._change([_update(each) for each in request["commands"]])
        return {"statusCode": 200}

    async def app_versions(self, request: Fields) -> Fields:
        """Return the application versions of endpoints; those of unknown ones are left out."""
        endpoint_ids = request["endpointIds"]
        found: dict[str, list[str]] = {}
        for endpoint_id, name in zip(
            endpoint_ids, await self._registrations.app_versions(endpoint_ids), strict=True
        ):
            if name is not None:
                found.setdefault(name, []).append(endpoint_id)
        return {"statusCode": 200, "appVersionsToEndpoints": found}

    async def _metadata(self, endpoint_id: str) -> Metadata:
        (found,) = await self._store.read([Wanted(endpoint_id)])
        if isinstance(found, ExtensionError):
            raise found
        return found

    async def _change(self, orders: list[Order]) -> None:
        """Make changes, with the endpoints' application versions in the events. Raise the first error."""
        names = await self._registrations.app_versions([order.endpoint_id for order in orders])
        named = [
            order._replace(app_version_name=name or "") for order, name in zip(orders, names, strict=True)
        ]
        for error in await self._store.change_all(named):
            if error is not None:
                raise error


def serve_repository(extension: Extension, repository: Repository) -> None:
    """Answer the requests of 19/EPMMP to an extension."""
    for exchange, answer in (
        (epmmp.GET, repository.get),
        (epmmp.GET_KEYS, repository.keys),
        (epmmp.PATCH, repository.patch),
        (epmmp.UPDATE_KEY, repository.update_key),
        (epmmp.UPDATE_KEYS, repository.update_keys),
        (epmmp.GET_APP_VERSIONS, repository.app_versions),
    ):
        serve(extension, epmmp.PROTOCOL, exchange, _complete(exchange, answer))


def _complete(
    exchange: Exchange, answer: Callable[[Fields], Awaitable[Fields]]
) -> Callable[[Fields], Awaitable[Fields]]:
    """Return a function that adds to an answer what the RFC repeats in it, and turns errors to answers."""
    names = {field["name"] for field in exchange.answer.type.schema["fields"]}

    async def complete(request: Fields) -> Fields:
        repeated = {name: request[name] for name in ("endpointId", "endpointIds") if name in names}
        empty: Fields = {"keys": []} if "keys" in names else {}
        if "appVersionsToEndpoints" in names:
            empty["appVersionsToEndpoints"] = {}
        try:
            return repeated | empty | await answer(request)
        except ExtensionError as error:
            return repeated | empty | {"statusCode": error.status_code, "reasonPhrase": error.reason_phrase}
        except StateUnavailable:
            return repeated | empty | {"statusCode": 503, "reasonPhrase": "JetStream is not available"}

    return complete


def _update(command: Fields) -> Order:
    """Return the change that sets a key to a JSON value. Raise ExtensionError 400 for a wrong key or value."""
    (key,) = checked_keys([command["metadataKey"]])
    value = compacted(_value(command["metadataValue"]))
    return Order(command["endpointId"], Change(lambda metadata: {**metadata, key: value}), "")


def _versions(if_match: str | None) -> set[str] | None:
    """Return the entity tags in the value of If-Match, without quotation marks; None if any version will do."""
    if if_match is None or if_match.strip() == ANY_VERSION:
        return None
    return {each.strip().removeprefix("W/").strip('"') for each in if_match.split(",")}
