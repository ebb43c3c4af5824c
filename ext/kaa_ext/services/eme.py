"""15/EME: the event that tells other services of a change to an endpoint's metadata.

Source: 15/EME "Endpoint Metadata Events".
"""

from collections.abc import Mapping

from kaa_gateway.bus import subjects

from kaa_ext.sdk.ism import OPTIONAL_STRING, STRING, MessageType

_VALUES = {"type": "map", "values": OPTIONAL_STRING}

METADATA_UPDATED = MessageType(
    "event.gen.v1.endpoint.metadata",
    "MetadataUpdatedEvent",
    appVersionName=STRING,
    endpointId=STRING,
    removed=_VALUES,
    added=_VALUES,
    updated={
        "type": "map",
        "values": {
            "type": "record",
            "name": "org.kaaproject.ipc.event.gen.v1.endpoint.metadata.MetadataKeyUpdatedDto",
            "fields": [
                {"name": "newValue", "type": OPTIONAL_STRING},
                {"name": "oldValue", "type": OPTIONAL_STRING},
            ],
        },
    },
    originatorReplicaId=STRING,
)

NULL = b"null"


def event_subject(instance: str) -> str:
    """Subject of a service instance's events."""
    return subjects.event(instance, "endpoint", "metadata", "updated")


def changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, dict[str, object]]:
    """The fields `removed`, `added` and `updated` of an event, of metadata given as JSON texts."""
    return {
        "removed": {key: _text(value) for key, value in before.items() if key not in after},
        "added": {key: _text(value) for key, value in after.items() if key not in before},
        "updated": {
            key: {"newValue": _text(value), "oldValue": _text(before[key])}
            for key, value in after.items()
            if key in before and before[key] != value
        },
    }


def _text(value: bytes) -> str | None:
    return None if value == NULL else value.decode()
