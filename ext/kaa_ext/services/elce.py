"""9/ELCE: which endpoints have become reachable through a gateway, and which no longer are.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from collections.abc import Mapping

import msgspec
from kaa_gateway.bus import subjects

from kaa_ext.sdk.ism import STRING, MessageType

_ENDPOINTS = {"type": "map", "values": STRING}

CONNECTED_EVENT = MessageType(
    "event.gen.v1.endpoint.connectivity", "ConnectedEvent", endpoints=_ENDPOINTS, originatorReplicaId=STRING
)
DISCONNECTED_EVENT = MessageType(
    "event.gen.v1.endpoint.connectivity",
    "DisconnectedEvent",
    endpoints=_ENDPOINTS,
    originatorReplicaId=STRING,
)


class Connectivity(msgspec.Struct, frozen=True, kw_only=True):
    """One event: endpoint IDs with their application versions, and the gateway replica that they are connected to.

    `timestamp` is the gateway's UNIX time in milliseconds.
    """

    connected: bool
    endpoints: Mapping[str, str]
    gateway_replica_id: str
    timestamp: int


def event_subject(gateway_instance: str, *, connected: bool) -> str:
    """Subject of a gateway instance's events of one kind."""
    return subjects.event(
        gateway_instance, "endpoint", "connectivity", "connected" if connected else "disconnected"
    )


def decode(datum: bytes, *, connected: bool) -> Connectivity:
    """An event. MalformedMessage if it is not one."""
    fields = (CONNECTED_EVENT if connected else DISCONNECTED_EVENT).decode(datum)
    return Connectivity(
        connected=connected,
        endpoints=fields["endpoints"],
        gateway_replica_id=fields["originatorReplicaId"],
        timestamp=fields["timestamp"],
    )
