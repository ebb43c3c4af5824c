"""The event of 15/EME as an extension sees it.

Source: 15/EME "Endpoint Metadata Events".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from kaa_ext.messages import eme


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
    def of(cls, fields: dict[str, Any]) -> "MetadataUpdate":
        """Return the update that an event has in its fields. Raise msgspec.DecodeError if a value is not JSON."""
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

    @classmethod
    def decode(cls, datum: bytes) -> "MetadataUpdate":
        """Decode an event. Raise MalformedAvro if `datum` is not one."""
        return cls.of(eme.METADATA_UPDATED.decode(datum))


def _values(texts: Mapping[str, str | None]) -> dict[str, Any]:
    return {key: _value(text) for key, text in texts.items()}


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
