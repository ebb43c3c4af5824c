"""21/TLE: the events that tell of a tenant's changes and of its end.

Source: 21/TLE "Tenant Lifecycle Events".
"""

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import MessageType

TENANT_UNREGISTERED = MessageType(
    "org.kaaproject.ipc.event.gen.v1.tenant.lifecycle",
    "UnregisteredEvent",
    tenantId="string",
    originatorReplicaId="string",
)
TENANT_UPDATED = MessageType(
    "org.kaaproject.ipc.event.gen.v1.tenant.lifecycle",
    "UpdatedEvent",
    tenantId="string",
    originatorReplicaId="string",
)


def event_subject(originator: str, kind: str) -> str:
    """Return the subject of an originator's events of a kind, `updated` or `unregistered`; `*` for all originators."""
    return subjects.event(originator, "tenant", "lifecycle", kind)
