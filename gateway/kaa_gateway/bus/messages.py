"""Control messages between services: Avro records with the head that 3/ISM gives them all.

What lives here: a record type's codec, on fastavro. What does not: the types, which stand with those who use them, and
the two of 4/ESP, which are native (kaa_gateway.wire.esp).

Source: 3/ISM "Inter-Service Messaging". Datums are bare: no container, no fingerprint.
"""

from __future__ import annotations

import io
import time
import uuid
from typing import Any, NamedTuple

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from kaa_gateway.errors import MalformedAvro

EVENT_SIZE_MAX = 768 * 1024
"""Bytes of an event, below NATS's usual limit of 1 MiB; what is more goes into another event."""

OPTIONAL_STRING = ["string", "null"]
"""As 16/ECAP and 22/CAP order the branches of what must be given, if only as null."""
NULLABLE_STRING = ["null", "string"]
"""As they order those of what may be left out."""


class MessageType:
    """One record type: `fields` are those after the head, by name, with their Avro types."""

    def __init__(self, namespace: str, name: str, **fields: Any) -> None:
        self.name = name
        self.schema = parse_schema(
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

    def encode(self, *, correlation_id: str | None = None, timeout: float = 0, **fields: Any) -> bytes:
        """A datum of now; `timeout` is the seconds until it is of no use, 0 for never."""
        out = io.BytesIO()
        schemaless_writer(
            out,
            self.schema,
            {
                "correlationId": correlation_id or str(uuid.uuid4()),
                "timestamp": time.time_ns() // 1_000_000,
                "timeout": int(timeout * 1000),
                **fields,
            },
        )
        return out.getvalue()

    def decode(self, datum: bytes) -> dict[str, Any]:
        """The fields of a datum, all of it. MalformedAvro if it is not one."""
        source = io.BytesIO(datum)
        try:
            fields = schemaless_reader(source, self.schema, None)
        except Exception:  # noqa: BLE001 - fastavro raises many kinds, and all mean this
            raise MalformedAvro("malformed_message", self.name) from None
        if source.read(1) or not isinstance(fields, dict):
            raise MalformedAvro("malformed_message", f"{self.name}: too long")
        return fields


class Kind(NamedTuple):
    """A message type, and the last token of the subjects that it goes to."""

    subject: str
    type: MessageType


class Exchange(NamedTuple):
    """A request and its answer."""

    request: Kind
    answer: Kind


def is_expired(fields: dict[str, Any]) -> bool:
    """Whether a message says that it is of no use any more."""
    timeout: int = fields["timeout"]
    timestamp: int = fields["timestamp"]
    return timeout > 0 and timestamp + timeout < time.time_ns() // 1_000_000


def _default(kind: Any) -> dict[str, Any]:
    return {"default": None} if kind is NULLABLE_STRING else {}
