"""19/EPMMP: the requests by which a service reads and changes the metadata that a repository has, and the answers.

Source: 19/EPMMP "Endpoint Metadata Management Protocol".
"""

from typing import Any

from kaa_gateway.bus.messages import OPTIONAL_BYTES, OPTIONAL_STRING, Exchange, Kind, MessageType

PROTOCOL = "epmmp"
"""The protocol's token in the subjects of its messages."""
NAMESPACE = "org.kaaproject.ipc.epmmp.gen.v1"

_STRINGS = {"type": "array", "items": "string"}
_STATUS = {"statusCode": "int", "reasonPhrase": OPTIONAL_STRING}


def _exchange(
    subject: str, request: str, response: str, request_fields: dict[str, Any], response_fields: dict[str, Any]
) -> Exchange:
    return Exchange(
        Kind(f"{subject}-request", MessageType(NAMESPACE, request, **request_fields)),
        Kind(f"{subject}-response", MessageType(NAMESPACE, response, **response_fields)),
    )


GET = _exchange(
    "ep-metadata-get",
    "EndpointMetadataGetRequest",
    "EndpointMetadataGetResponse",
    {"endpointId": "string", "include": _STRINGS, "includeMetadata": "boolean"},
    {
        "endpointId": "string",
        "eTag": OPTIONAL_STRING,
        "payload": OPTIONAL_BYTES,
        **_STATUS,
        "appVersionName": OPTIONAL_STRING,
    },
)
"""`payload` is the metadata as a JSON object, `include` names the keys in it (all if empty)."""

PATCH = _exchange(
    "ep-metadata-patch",
    "EndpointMetadataPatchRequest",
    "EndpointMetadataPatchResponse",
    {"endpointId": "string", "ifMatch": OPTIONAL_STRING, "patch": "bytes"},
    {"endpointId": "string", **_STATUS},
)
"""`patch` is a JSON Patch (RFC 6902) of the metadata."""

UPDATE_KEY = _exchange(
    "ep-metadata-key-update",
    "EndpointMetadataKeyUpdateRequest",
    "EndpointMetadataKeyUpdateResponse",
    {"endpointId": "string", "metadataKey": "string", "metadataValue": "bytes"},
    {"endpointId": "string", **_STATUS},
)

UPDATE_KEYS = _exchange(
    "ep-metadata-key-batch-update",
    "EndpointMetadataKeyBatchUpdateRequest",
    "EndpointMetadataKeyBatchUpdateResponse",
    {
        "commands": {
            "type": "array",
            "items": {
                "type": "record",
                "name": f"{NAMESPACE}.EndpointMetadataKeyUpdateCommand",
                "fields": [
                    {"name": "endpointId", "type": "string"},
                    {"name": "metadataKey", "type": "string"},
                    {"name": "metadataValue", "type": "bytes"},
                ],
            },
        }
    },
    _STATUS,
)

GET_KEYS = _exchange(
    "ep-metadata-keys-get",
    "EndpointMetadataKeysGetRequest",
    "EndpointMetadataKeysGetResponse",
    {"endpointId": "string"},
    {"endpointId": "string", "keys": _STRINGS, **_STATUS},
)

GET_APP_VERSIONS = _exchange(
    "ep-app-version-get",
    "AppVersionsByEndpointsRequest",
    "AppVersionsByEndpointsResponse",
    {"endpointIds": _STRINGS},
    {
        "endpointIds": _STRINGS,
        "appVersionsToEndpoints": {"type": "map", "values": _STRINGS},
        **_STATUS,
    },
)
"""The answer maps application versions to endpoint IDs."""

EXCHANGES = (GET, PATCH, UPDATE_KEY, UPDATE_KEYS, GET_KEYS, GET_APP_VERSIONS)
