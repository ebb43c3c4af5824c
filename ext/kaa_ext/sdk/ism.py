"""Messages between services: Avro datums with the head that 3/ISM gives them all.

Each protocol declares its messages in a module of its own (cdtp, cip, dstp, elce, eme).

Source: 3/ISM "Inter-Service Messaging". Datums are bare: no container, no fingerprint.
"""

import io
from typing import Any
from uuid import uuid4

import fastavro

from kaa_ext.sdk.errors import ExtError
from kaa_ext.sdk.requests import now_ms

STRING = "string"
LONG = "long"
INT = "int"
BYTES = "bytes"
OPTIONAL_STRING = ["null", "string"]
OPTIONAL_BYTES = ["null", "bytes"]


class MalformedMessage(ExtError):  # noqa: N818 - the field's word for it
    """A datum is not the Avro of its message type."""


class MessageType:
    """One Avro record type: `fields` are those after the head, by name; optional ones are null by default."""

    def __init__(self, namespace: str, name: str, **fields: Any) -> None:
        self.name = name
        self.schema = fastavro.parse_schema(
            {
                "type": "record",
                "name": f"org.kaaproject.ipc.{namespace}.{name}",
                "fields": [
                    {"name": "correlationId", "type": STRING},
                    {"name": "timestamp", "type": LONG},
                    {"name": "timeout", "type": LONG, "default": 0},
                    *({"name": name, "type": kind, **_default(kind)} for name, kind in fields.items()),
                ],
            }
        )

    def encode(self, **fields: Any) -> bytes:
        """A datum; correlation ID, timestamp and timeout are a fresh UUID, now and 0 (never) unless they are given."""
        head = {
            "correlationId": fields.get("correlationId") or str(uuid4()),
            "timestamp": now_ms(),
            "timeout": 0,
        }
        output = io.BytesIO()
        fastavro.schemaless_writer(output, self.schema, head | fields)
        return output.getvalue()

    def decode(self, datum: bytes) -> dict[str, Any]:
        """The fields of a datum. MalformedMessage if it is not one."""
        try:
            record = fastavro.schemaless_reader(io.BytesIO(datum), self.schema, None)
        except Exception as error:  # fastavro raises many kinds, and all mean this
            raise MalformedMessage(f"{self.name} is malformed") from error
        assert isinstance(record, dict)
        return record


def deadline(fields: dict[str, Any]) -> int | None:
    """When a message expires, as a UNIX time in milliseconds; None for never."""
    return fields["timestamp"] + fields["timeout"] if fields["timeout"] > 0 else None


def expired(fields: dict[str, Any]) -> bool:
    """Whether a message's time is over: it must then be dropped."""
    at = deadline(fields)
    return at is not None and at < now_ms()


def _default(kind: Any) -> dict[str, Any]:
    return {"default": None} if isinstance(kind, list) and kind[0] == "null" else {}
