"""The event of 15/EME as an extension sees it.

Source: 15/EME "Endpoint Metadata Events".
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from nats.aio.msg import Msg

from kaa_ext.messages import eme

if TYPE_CHECKING:
    from kaa_ext.sdk.extension import Extension


class Updated(NamedTuple):
    """The values of a metadata key before and after its change."""

    old: Any
    new: Any


class MetadataUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of an endpoint have changed. Values are those that the JSON texts of the event stand for.

    `timestamp` is the originator's UNIX time in milliseconds.
    """

    endpoint_id: str
    app_version_name: str
    removed: Mapping[str, Any]
    added: Mapping[str, Any]
    updated: Mapping[str, Updated]
    originator_replica_id: str
    timestamp: int

    @classmethod
    def decode(cls, datum: bytes) -> "MetadataUpdate":
        """Decode an event. Raise MalformedAvro if `datum` is not one, msgspec.DecodeError if a value is not JSON."""
        fields = eme.METADATA_UPDATED.decode(datum)
        return cls(
            endpoint_id=fields["endpointId"],
            app_version_name=fields["appVersionName"],
            removed=_values(fields["removed"]),
            added=_values(fields["added"]),
            updated={
                key: Updated(_value(each["oldValue"]), _value(each["newValue"]))
                for key, each in fields["updated"].items()
            },
            originator_replica_id=fields["originatorReplicaId"],
            timestamp=fields["timestamp"],
        )


AnyMetadataHandler = TypeVar("AnyMetadataHandler", bound=Callable[[MetadataUpdate], Awaitable[None]])


def listen(extension: "Extension", originator: str, function: AnyMetadataHandler) -> AnyMetadataHandler:
    """Call a function for each event of a service instance, on one of the extension's replicas. Return it."""

    async def receive(message: Msg) -> None:
        await function(MetadataUpdate.decode(message.data))

    extension.subscribe(eme.event_subject(originator), receive, shared=True)
    return function


def _values(texts: Mapping[str, str | None]) -> dict[str, Any]:
    return {key: _value(text) for key, text in texts.items()}


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
