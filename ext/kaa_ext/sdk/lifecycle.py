"""The lifecycle events of 9/ELCE as an extension sees them.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from typing import Literal, TypeAlias

import msgspec
from kaa_gateway.bus import elce

Kind: TypeAlias = Literal["registered", "unregistered", "appversion-updated"]

_TYPES = {
    elce.REGISTERED: elce.REGISTERED_EVENT,
    elce.UNREGISTERED: elce.UNREGISTERED_EVENT,
    elce.APP_VERSION_UPDATED: elce.APP_VERSION_UPDATED_EVENT,
}
KINDS: tuple[Kind, ...] = ("registered", "unregistered", "appversion-updated")


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint was registered or unregistered, or has another application version.

    `timestamp` is the originator's UNIX time in milliseconds. Only an update has a previous application version.
    """

    kind: Kind
    endpoint_id: str
    app_version_name: str
    previous_app_version_name: str | None
    originator_replica_id: str
    timestamp: int

    @classmethod
    def decode(cls, datum: bytes, kind: Kind) -> "Lifecycle":
        """Decode an event of this kind. Raise MalformedAvro if `datum` is not one."""
        fields = _TYPES[kind].decode(datum)
        return cls(
            kind=kind,
            endpoint_id=fields["endpointId"],
            app_version_name=fields["appVersionName"],
            previous_app_version_name=fields.get("previousAppVersionName"),
            originator_replica_id=fields["originatorReplicaId"],
            timestamp=fields["timestamp"],
        )
