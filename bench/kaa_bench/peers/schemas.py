"""The two schemas of 4/ESP for fastavro, for peers and probes that do not use the gateway's codecs.

Source: 4/ESP, 0004-client-data and 0004-extension-data.
"""

from typing import Any

import fastavro


def _record(name: str, *fields: tuple[str, Any]) -> Any:
    return fastavro.parse_schema(
        {
            "type": "record",
            "name": name,
            "namespace": "org.kaaproject.ipc.esp.gen.v1",
            "fields": [{"name": field, "type": kind} for field, kind in fields],
        }
    )


CLIENT_DATA = _record(
    "ClientData",
    ("correlationId", "string"),
    ("timestamp", "long"),
    ("timeout", "long"),
    ("appVersionName", "string"),
    ("endpointId", ["string", "null"]),
    ("resourcePath", "string"),
    ("requestId", ["int", "null"]),
    ("payload", "bytes"),
    ("configName", ["null", "string"]),
)
EXTENSION_DATA = _record(
    "ExtensionData",
    ("correlationId", "string"),
    ("timestamp", "long"),
    ("timeout", "long"),
    ("appVersionName", ["string", "null"]),
    ("extensionInstanceName", ["string", "null"]),
    ("endpointId", ["string", "null"]),
    ("resourcePath", "string"),
    ("requestId", ["int", "null"]),
    ("payload", ["bytes", "null"]),
    ("statusCode", "int"),
    ("reasonPhrase", ["null", "string"]),
)
