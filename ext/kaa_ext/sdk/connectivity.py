"""The 9/ELCE event as an extension sees it.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from collections.abc import Mapping

import msgspec
from kaa_gateway.bus import elce


class Connectivity(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints that have connected to a gateway replica, or disconnected from it.

    `endpoints` maps endpoint IDs to application versions. `timestamp` is the gateway's UNIX time in milliseconds.
    """

    connected: bool
    endpoints: Mapping[str, str]
    gateway_replica_id: str
    timestamp: int

    @classmethod
    def decode(cls, datum: bytes, *, connected: bool) -> "Connectivity":
        """Decode a connected or disconnected event. Raise MalformedAvro if `datum` is not one."""
        fields = (elce.CONNECTED_EVENT if connected else elce.DISCONNECTED_EVENT).decode(datum)
        return cls(
            connected=connected,
            endpoints=fields["endpoints"],
            gateway_replica_id=fields["originatorReplicaId"],
            timestamp=fields["timestamp"],
        )
