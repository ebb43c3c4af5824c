"""9/ELCE: the events that tell which endpoints have become reachable through a gateway, and which no longer are.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import MessageType

NAMESPACE = "org.kaaproject.ipc.event.gen.v1.endpoint.connectivity"

_FIELDS = {
    "endpoints": {"type": "map", "values": "string"},
    "originatorReplicaId": "string",
}
"""`endpoints` maps endpoint IDs to application version names."""

CONNECTED_EVENT = MessageType(NAMESPACE, "ConnectedEvent", **_FIELDS)
DISCONNECTED_EVENT = MessageType(NAMESPACE, "DisconnectedEvent", **_FIELDS)


def event_subject(gateway_instance: str, *, connected: bool) -> str:
    """Return the subject of a gateway instance's connected or disconnected events."""
    return subjects.event(
        gateway_instance, "endpoint", "connectivity", "connected" if connected else "disconnected"
    )
