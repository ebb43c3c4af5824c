"""The metadata that epmx keeps itself, in JetStream. Every change of it is followed by the event of 15/EME.

State `metadata`: key (endpoint ID); the value is the metadata as a JSON object.

Source: 15/EME "Endpoint Metadata Events".
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from kaa_ext.messages import eme
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.state import State
from kaa_ext.services.epmx.metadata import Change, Metadata, texts

STATE = "metadata"


class Wanted(NamedTuple):
    """The metadata keys of an endpoint that a request needs; None for all."""

    endpoint_id: str
    keys: list[str] | None = None


class Order(NamedTuple):
    """A change of the metadata of an endpoint, ordered by a request."""

    endpoint_id: str
    change: Change
    app_version_name: str
    correlation_id: str | None = None


class Store(Protocol):
    """Has the metadata of endpoints."""

    async def read(self, wanted: Sequence[Wanted]) -> list[Metadata | ExtensionError]:
        """Return the metadata, or at least the wanted keys of it."""
        ...

    async def keys(self, endpoint_ids: Sequence[str]) -> list[list[str] | ExtensionError]:
        """Return the metadata keys of endpoints."""
        ...

    async def change_all(self, orders: Sequence[Order]) -> list[ExtensionError | None]:
        """Make changes, each atomically. Those of one endpoint are made in order. Return the error of each."""
        ...


class OwnStore:
    """The metadata of an epmx instance. `publish` sends an event; `replica_id` is its originator."""

    def __init__(
        self,
        instance: str,
        replica_id: str,
        state: State[Metadata],
        publish: Callable[[str, bytes], Awaitable[None]],
    ) -> None:
        self._replica_id = replica_id
        self._state = state
        self._publish = publish
        self._event_subject = eme.event_subject(instance)

    async def read(self, wanted: Sequence[Wanted]) -> list[Metadata | ExtensionError]:
        """Return the metadata of endpoints, complete."""
        found = await self._state.get_all([(each.endpoint_id,) for each in wanted])
        return [each or {} for each in found]

    async def keys(self, endpoint_ids: Sequence[str]) -> list[list[str] | ExtensionError]:
        """Return the metadata keys of endpoints."""
        found = await self._state.get_all([(each,) for each in endpoint_ids])
        return [list(each or {}) for each in found]

    async def change(self, endpoint_id: str, change: Change, *, app_version_name: str = "") -> None:
        """Change the metadata of an endpoint. Raise the ExtensionError of the change."""
        (error,) = await self.change_all([Order(endpoint_id, change, app_version_name)])
        if error is not None:
            raise error

    async def change_all(self, orders: Sequence[Order]) -> list[ExtensionError | None]:
        """Make changes, and publish an event for each that changes anything."""
        errors: list[ExtensionError | None] = [None] * len(orders)
        begun: list[asyncio.Future[Metadata | None]] = [
            self._state.submit(order.endpoint_id, change=order.change) for order in orders
        ]
        for place, (order, done) in enumerate(zip(orders, begun, strict=True)):
            try:
                await done
                await self._publish_event(order)
            except ExtensionError as error:
                errors[place] = error
        return errors

    async def _publish_event(self, order: Order) -> None:
        changes = eme.changes(texts(order.change.before), texts(order.change.after))
        if any(changes.values()):
            event = eme.METADATA_UPDATED.encode(
                correlation_id=order.correlation_id,
                appVersionName=order.app_version_name,
                endpointId=order.endpoint_id,
                originatorReplicaId=self._replica_id,
                **changes,
            )
            await self._publish(self._event_subject, event)
