"""21/TLE: the event that tells of a tenant's end.

Source: 21/TLE "Tenant Lifecycle Events".
"""

from kaa_gateway.bus.messages import MessageType

TENANT_UNREGISTERED = MessageType(
    "org.kaaproject.ipc.event.gen.v1.tenant.lifecycle",
    "UnregisteredEvent",
    tenantId="string",
    originatorReplicaId="string",
)
