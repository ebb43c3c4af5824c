"""9/ELCE connectivity events: which endpoints can be reached through this replica, and which no longer can.

Changes are gathered for a short window, so that a client which speaks for many endpoints is one event, and a
reconnect storm a few. Per endpoint, events keep their order.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from __future__ import annotations

import asyncio
import io
import time
import uuid
from typing import TYPE_CHECKING, Any

from fastavro import parse_schema, schemaless_writer

from gateway.bus import subjects

if TYPE_CHECKING:
    from gateway.bus.control import Control

WINDOW = 0.1
"""Seconds for which changes are gathered."""
EVENT_ENDPOINTS_MAX = 5_000
"""Endpoints of one event: about 500 KiB with UUIDs for endpoint IDs, below NATS's usual limit of 1 MiB."""


def _schema(name: str) -> Any:
    return parse_schema(
        {
            "namespace": "org.kaaproject.ipc.event.gen.v1.endpoint.connectivity",
            "name": name,
            "type": "record",
            "fields": [
                {"name": "correlationId", "type": "string"},
                {"name": "timestamp", "type": "long"},
                {"name": "timeout", "type": "long", "default": 0},
                {"name": "endpoints", "type": {"type": "map", "values": "string"}},
                {"name": "originatorReplicaId", "type": "string"},
            ],
        }
    )


CONNECTED_EVENT = _schema("ConnectedEvent")
DISCONNECTED_EVENT = _schema("DisconnectedEvent")


class Connectivity:
    """Publishes connected and disconnected events; what kp's sessions call their presence."""

    def __init__(self, control: Control, instance: str, replica_id: str) -> None:
        self._control = control
        self._replica_id = replica_id
        self._subjects = {
            True: subjects.event(instance, "endpoint", "connectivity", "connected"),
            False: subjects.event(instance, "endpoint", "connectivity", "disconnected"),
        }
        self._changes: dict[bool, dict[str, str]] = {True: {}, False: {}}
        self._timer: asyncio.TimerHandle | None = None

    def appeared(self, endpoint_id: str, app_version_name: str) -> None:
        """An endpoint's first connection to this replica is there."""
        self._add(True, endpoint_id, app_version_name)

    def disappeared(self, endpoint_id: str, app_version_name: str) -> None:
        """An endpoint's last connection to this replica has ended."""
        self._add(False, endpoint_id, app_version_name)

    def _add(self, connected: bool, endpoint_id: str, app_version_name: str) -> None:
        if endpoint_id in self._changes[not connected]:
            self.flush()
        changes = self._changes[connected]
        changes[endpoint_id] = app_version_name
        if len(changes) >= EVENT_ENDPOINTS_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW, self.flush)

    def flush(self) -> None:
        """Publish what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connected, schema in ((False, DISCONNECTED_EVENT), (True, CONNECTED_EVENT)):
            endpoints = self._changes[connected]
            if not endpoints:
                continue
            self._changes[connected] = {}
            self._control.publish_event(
                self._subjects[connected],
                _datum(
                    schema,
                    {
                        "correlationId": str(uuid.uuid4()),
                        "timestamp": time.time_ns() // 1_000_000,
                        "timeout": 0,
                        "endpoints": endpoints,
                        "originatorReplicaId": self._replica_id,
                    },
                ),
            )


def _datum(schema: Any, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, schema, record)
    return out.getvalue()
