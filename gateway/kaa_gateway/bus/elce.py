"""9/ELCE: the events that tell which endpoints can be reached through a gateway, and of their registration.

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

LIFECYCLE_NAMESPACE = "org.kaaproject.ipc.event.gen.v1.endpoint.lifecycle"

REGISTERED = "registered"
UNREGISTERED = "unregistered"
APP_VERSION_UPDATED = "appversion-updated"
"""The kinds of lifecycle events."""

_LIFECYCLE_FIELDS = {"endpointId": "string", "originatorReplicaId": "string"}

REGISTERED_EVENT = MessageType(
    LIFECYCLE_NAMESPACE, "RegisteredEvent", appVersionName="string", **_LIFECYCLE_FIELDS
)
UNREGISTERED_EVENT = MessageType(
    LIFECYCLE_NAMESPACE, "UnregisteredEvent", appVersionName="string", **_LIFECYCLE_FIELDS
)
APP_VERSION_UPDATED_EVENT = MessageType(
    LIFECYCLE_NAMESPACE,
    "AppVersionUpdatedEvent",
    appVersionName="string",
    previousAppVersionName="string",
    **_LIFECYCLE_FIELDS,
)


def event_subject(gateway_instance: str, *, connected: bool) -> str:
    """Return the subject of a gateway instance's connected or disconnected events."""
    return subjects.event(
        gateway_instance, "endpoint", "connectivity", "connected" if connected else "disconnected"
    )


def lifecycle_subject(originator: str, kind: str) -> str:
    """Return the subject of an originator's lifecycle events of a kind; `*` for all originators."""
    return subjects.event(originator, "endpoint", "lifecycle", kind)
