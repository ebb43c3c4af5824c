"""The queues and tables of a worker that peers can fill, for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.admin.metrics import Queue
from kaa_gateway.bus.control import OUTBOX_MAX
from kaa_gateway.identity.shared_requests import MAX_IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.app.listeners import Listeners
    from kaa_gateway.app.tracing import Tracing
    from kaa_gateway.bus.control import Control
    from kaa_gateway.bus.durable import DurableLanes
    from kaa_gateway.bus.link import Link
    from kaa_gateway.config import Config
    from kaa_gateway.identity.service import IdentityService
    from kaa_gateway.mqtt.session_store import MqttSessionStore
    from kaa_gateway.net.input_memory import InputMemory


def queues_of(
    current: Callable[[], Config],
    *,
    link: Link,
    control: Control,
    identity: IdentityService,
    input_memory: InputMemory,
    mqtt_sessions: MqttSessionStore,
    durable: DurableLanes,
    listeners: Listeners,
    tracing: Tracing | None,
) -> list[Queue]:
    """Return the queues and tables of one worker; `current` returns its configuration."""
    mqtt = current().transports.mqtt
    durable_bytes = current().durable.max_pending_bytes
    return [
        Queue("nats_backlog_bytes", lambda: link.backlog, lambda: link.pending_max),
        Queue("input_bytes", lambda: input_memory.bytes, lambda: current().limits.input_memory),
        Queue("events", control.waiting, lambda: OUTBOX_MAX),
        Queue("identity_requests", identity.waiting, lambda: MAX_IN_FLIGHT),
        Queue("mqtt_absent_sessions", mqtt_sessions.offline_count, lambda: mqtt.persistent_sessions),
        Queue(
            "mqtt_absent_session_bytes", mqtt_sessions.offline_bytes, lambda: mqtt.persistent_session_memory
        ),
        *(
            Queue(f"durable_{lane.instance}_bytes", lane.backlog, lambda: durable_bytes)
            for lane in durable.lanes
        ),
        *(
            Queue(
                f"{each.name}_connections",
                each.socket.connection_count,
                lambda: current().limits.connections,
            )
            for each in listeners.streams
        ),
        *(
            Queue(f"{name}_requests", table.count, lambda table=table: table.capacity)  # type: ignore[misc]
            for name, table in listeners.pending.items()
        ),
        *listeners.queues,
        *(() if tracing is None else tracing.queues()),
    ]
