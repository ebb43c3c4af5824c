"""Messages between services: Avro records with the header fields that 3/ISM gives each of them.

What lives here: the codec of a record type; kaa_gateway.wire.records encodes, fastavro decodes. What does not: the
message types, a module a protocol (those of the gateway stand beside this one: `elce`, `ecap`, `cap`, `tle`), and the
two messages of 4/ESP, which are native (kaa_gateway.wire.esp).

Source: 3/ISM "Inter-Service Messaging". Datums are bare: no container, no fingerprint.
"""

from __future__ import annotations

import io
import time
import uuid
from typing import Any, NamedTuple

from fastavro import parse_schema, schemaless_reader

from kaa_gateway.errors import MalformedAvro
from kaa_gateway.wire.records import Type

EVENT_SIZE_MAX = 768 * 1024
"""Bytes of an event, below NATS's usual limit of 1 MiB; larger events are split."""

NULLABLE_STRING = ["string", "null"]
"""A string that must be given, if only as null: 16/ECAP and 22/CAP put the branches in this order."""
OPTIONAL_STRING = ["null", "string"]
"""A string that may be left out; null by default."""
OPTIONAL_BYTES = ["null", "bytes"]
"""Bytes that may be left out; null by default."""


class MessageType:
    """An Avro record type. `fields` are those after the header, by name, with their Avro types."""

    def __init__(self, namespace: str, name: str, **fields: Any) -> None:
        self.name = name
        schema = parse_schema(
            {
                "namespace": namespace,
                "name": name,
                "type": "record",
                "fields": [
                    {"name": "correlationId", "type": "string"},
                    {"name": "timestamp", "type": "long"},
                    {"name": "timeout", "type": "long", "default": 0},
                    *({"name": field, "type": kind, **_default(kind)} for field, kind in fields.items()),
                ],
            }
        )
        assert isinstance(schema, dict)
        self.schema = schema
        self._type = Type(schema)

    def encode(self, *, correlation_id: str | None = None, timeout: float = 0, **fields: Any) -> bytes:
        """Return a datum with the current time. `timeout` is in seconds; 0 never expires.

        Without `correlation_id` the datum has a new UUID.
        """
        return self._type.encode(
            {
                "correlationId": correlation_id or str(uuid.uuid4()),
                "timestamp": now_ms(),
                "timeout": int(timeout * 1000),
                **fields,
            }
        )

    def decode(self, datum: bytes) -> dict[str, Any]:
        """Return the fields of a datum. Raise MalformedAvro if it is not one, or has bytes left over."""
        source = io.BytesIO(datum)
        try:
            fields = schemaless_reader(source, self.schema, None)
        except Exception:  # noqa: BLE001 - fastavro raises many kinds, and all mean this
            raise MalformedAvro("malformed_message", self.name) from None
        if source.read(1) or not isinstance(fields, dict):
            raise MalformedAvro("malformed_message", f"{self.name}: too long")
        return fields


class Kind(NamedTuple):
    """A message type, and the last token of its subjects."""

    subject: str
    type: MessageType


class Exchange(NamedTuple):
    """A request and its answer."""

    request: Kind
    answer: Kind


def now_ms() -> int:
    """Return the UNIX time in milliseconds, the unit of every timestamp in 3/ISM."""
    return time.time_ns() // 1_000_000


def deadline(fields: dict[str, Any]) -> int | None:
    """Return the UNIX time in milliseconds at which a message expires; None if it never does."""
    timestamp: int = fields["timestamp"]
    timeout: int = fields["timeout"]
    return timestamp + timeout if timeout > 0 else None


def is_expired(fields: dict[str, Any]) -> bool:
    """Return whether a message has expired, and must be dropped."""
    at = deadline(fields)
    return at is not None and at < now_ms()


def _default(kind: Any) -> dict[str, Any]:
    return {"default": None} if isinstance(kind, list) and kind[0] == "null" else {}
