"""17/SCMP and 21/TLE: the cluster announces that a configuration, or a tenant, has changed.

The messages do not carry a configuration. They name the tenant, application or version, so that services read their
configuration again. Ours is a file with all applications, so we read it for each message, from any provider.

An updated tenant (21/TLE) may have other applications, so it means the same.

Every replica must do so. So all replicas receive the targeted messages too, without a queue group. None is answered.

Source: 17/SCMP, 0017-broadcast_configuration_update.avsc, 0017-service_specific_configuration_update.avsc; 21/TLE,
0021-tenant-updated.avsc.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import structlog
from fastavro import parse_schema, schemaless_reader

from kaa_gateway.bus import subjects, tle

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.bus.control import Control
    from kaa_gateway.counters import Counters

log = structlog.get_logger("gateway.lifecycle")

KINDS = ("upsert", "delete")


def _schema(name: str, *fields: tuple[str, Any]) -> Any:
    return parse_schema(
        {
            "namespace": "org.kaaproject.scmp.event.gen.v1.service.configuration",
            "name": name,
            "type": "record",
            "fields": [
                {"name": "correlationId", "type": "string"},
                {"name": "timestamp", "type": "long"},
                *({"name": field, "type": kind} for field, kind in fields),
                {"name": "appName", "type": ["null", "string"], "default": None},
                {"name": "appVerName", "type": ["null", "string"], "default": None},
            ],
        }
    )


BROADCAST = _schema(
    "BroadcastConfigurationUpdateEvent",
    ("originatorReplicaId", "string"),
    ("tenantID", ["null", "string"]),
)
TARGETED = _schema("ServiceSpecificConfigurationUpdateEvent", ("tenantID", "string"))
"""These messages have no timeout, unlike others of 3/ISM."""
TENANT = tle.TENANT_UPDATED.schema


class Announcements:
    """Calls `announce` for each message that our configuration may have changed, from `Control.start` on."""

    def __init__(
        self, control: Control, counters: Counters, instance: str, announce: Callable[[], None]
    ) -> None:
        self._announce = announce
        self._counters = counters
        for kind in KINDS:
            control.subscribe(subjects.event("*", "service", "configuration", kind), self._on_broadcast)
            control.subscribe(subjects.service(instance, "scmp", f"configuration.{kind}"), self._on_targeted)
        control.subscribe(tle.event_subject("*", "updated"), self._on_tenant)

    def _on_broadcast(self, subject: str, datum: bytes) -> None:
        self._receive(subject, BROADCAST, datum)

    def _on_targeted(self, subject: str, datum: bytes) -> None:
        self._receive(subject, TARGETED, datum)

    def _on_tenant(self, subject: str, datum: bytes) -> None:
        self._receive(subject, TENANT, datum)

    def _receive(self, subject: str, schema: Any, datum: bytes) -> None:
        try:
            source = io.BytesIO(datum)
            schemaless_reader(source, schema, None)
        except Exception:  # noqa: BLE001 - fastavro raises many kinds, and all mean that it is none
            self._counters.add("dropped", "malformed_announcement")
            log.warning("announcement of a configuration dropped: malformed", kind=subject.rpartition(".")[2])
            return
        self._announce()
