"""The lifecycle events of 9/ELCE as an extension sees them.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import msgspec
from kaa_gateway.bus import elce
from nats.aio.msg import Msg

if TYPE_CHECKING:
    from kaa_ext.sdk.extension import Extension

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


LifecycleHandler: TypeAlias = Callable[[Lifecycle], Awaitable[None]]
AnyLifecycleHandler = TypeVar("AnyLifecycleHandler", bound=LifecycleHandler)


def listen(extension: "Extension", function: LifecycleHandler) -> None:
    """Call a function for each event of any service, on one of the extension's replicas."""
    for kind in KINDS:

        async def receive(message: Msg, kind: Kind = kind) -> None:
            await function(Lifecycle.decode(message.data, kind))

        extension.subscribe(elce.lifecycle_subject("*", kind), receive, shared=True)
