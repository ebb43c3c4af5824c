"""15/EME: the event that tells other services of a change to an endpoint's metadata.

Source: 15/EME "Endpoint Metadata Events".
"""

from collections.abc import Mapping
from typing import Any

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import OPTIONAL_STRING, MessageType

NAMESPACE = "org.kaaproject.ipc.event.gen.v1.endpoint.metadata"

_VALUES = {"type": "map", "values": OPTIONAL_STRING}

METADATA_UPDATED = MessageType(
    NAMESPACE,
    "MetadataUpdatedEvent",
    appVersionName="string",
    endpointId="string",
    removed=_VALUES,
    added=_VALUES,
    updated={
        "type": "map",
        "values": {
            "type": "record",
            "name": f"{NAMESPACE}.MetadataKeyUpdatedDto",
            "fields": [
                {"name": "newValue", "type": OPTIONAL_STRING},
                {"name": "oldValue", "type": OPTIONAL_STRING},
            ],
        },
    },
    originatorReplicaId="string",
)

NULL = b"null"


def event_subject(instance: str) -> str:
    """Return the subject of a service instance's events."""
    return subjects.event(instance, "endpoint", "metadata", "updated")


def changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the fields `removed`, `added` and `updated` of an event; the values given are JSON texts."""
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
