"""The two Avro schemas of 4/ESP, restated here so that tests have an oracle that owes nothing to our own codec.

Beside a copy of the RFCs `rfc_schema` takes theirs; a test holds the two equal. No other schema is on the hot path:
those are fastavro's, and need no second opinion.

Source: 4/ESP "Extension Service Protocol", 0004-client-data.avsc and 0004-extension-data.avsc.
"""

import io
import json
from pathlib import Path
from typing import Any

import fastavro

RFC_DIRECTORY = Path(__file__).parents[3] / "shared" / "spec" / "avro"
"""Where the schemas of the RFCs lie if they lie beside this checkout."""

NAMESPACE = "org.kaaproject.ipc.esp.gen.v1"

CLIENT_DATA = {
    "type": "record",
    "name": f"{NAMESPACE}.ClientData",
    "fields": [
        {"name": "correlationId", "type": "string"},
        {"name": "timestamp", "type": "long"},
        {"name": "timeout", "type": "long", "default": 0},
        {"name": "appVersionName", "type": "string"},
        {"name": "endpointId", "type": ["string", "null"]},
        {"name": "resourcePath", "type": "string"},
        {"name": "requestId", "type": ["int", "null"]},
        {"name": "payload", "type": "bytes"},
        {"name": "configName", "type": ["null", "string"], "default": None},
    ],
}

EXTENSION_DATA = {
    "type": "record",
    "name": f"{NAMESPACE}.ExtensionData",
    "fields": [
        {"name": "correlationId", "type": "string"},
        {"name": "timestamp", "type": "long"},
        {"name": "timeout", "type": "long", "default": 0},
        {"name": "appVersionName", "type": ["string", "null"]},
        {"name": "extensionInstanceName", "type": ["string", "null"]},
        {"name": "endpointId", "type": ["string", "null"]},
        {"name": "resourcePath", "type": "string"},
        {"name": "requestId", "type": ["int", "null"]},
        {"name": "payload", "type": ["bytes", "null"]},
        {"name": "statusCode", "type": "int"},
        {"name": "reasonPhrase", "type": ["null", "string"], "default": None},
    ],
}

OURS: dict[str, dict[str, Any]] = {
    "0004-client-data": CLIENT_DATA,
    "0004-extension-data": EXTENSION_DATA,
}
"""Our restatements by the file names of the RFCs."""


def rfc_schema(name: str, ours: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema `<name>.avsc` of the RFCs if they are at hand, else `ours` or our restatement of it."""
    path = RFC_DIRECTORY / f"{name}.avsc"
    if path.exists():
        schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return schema
    return ours or OURS[name]


_PARSED = {name: fastavro.parse_schema(rfc_schema(name)) for name in OURS}


def encode(name: str, record: dict[str, Any]) -> bytes:
    """Return fastavro's bare datum of a record of one of the two schemas."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _PARSED[name], record)
    return out.getvalue()


def decode(name: str, datum: bytes) -> dict[str, Any]:
    """Return the record that fastavro reads in a bare datum of one of the two schemas, which must end with it."""
    source = io.BytesIO(datum)
    record = fastavro.schemaless_reader(source, _PARSED[name], None)
    assert isinstance(record, dict)
    assert not source.read(), f"bytes behind a {name} datum"
    return record
