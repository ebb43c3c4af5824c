"""All replicas of a gateway instance, as an operator asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from kaa_gateway.errors import BusError
from kaa_gateway.fleet import operations
from kaa_gateway.fleet.operations import (
    Done,
    Drain,
    EndSession,
    GetStatus,
    ListSessions,
    Refused,
    Request,
    Sessions,
    Shed,
    Status,
)

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control

ANSWER_TIMEOUT = 5.0
"""Seconds that one replica has to answer."""
DISCOVERY_TIME = 0.5
"""Seconds for which answers of replicas that are not known are awaited."""

Answer = TypeVar("Answer", bound=Struct)


class Replicas:
    """The replicas of `instance`, asked over `control`, which is connected."""

    def __init__(self, control: Control, instance: str) -> None:
        self._control = control
        self._instance = instance

    async def all(self) -> list[Status]:
        """Return the replicas that answer, by name."""
        subject = operations.to_all(self._instance, GetStatus)
        answers = await self._control.gather(subject, operations.encode(GetStatus()), DISCOVERY_TIME)
        found = []
        for answer in answers:
            try:
                found.append(operations.decode(Status, answer))
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue  # of another version
        return sorted(found, key=lambda status: status.replica)

    async def status(self, replica_id: str) -> Status:
        """Return how a replica is. BusError if it does not answer."""
        return await self._ask(replica_id, GetStatus(), Status)

    async def drain(self, replica_id: str, request: Drain) -> int:
        """Have a replica drain; return the connections that it has."""
        return (await self._ask(replica_id, request, Done)).count

    async def shed(self, replica_id: str, request: Shed) -> int:
        """Have a replica send clients away; return how many it will."""
        return (await self._ask(replica_id, request, Done)).count

    async def page(self, replica_id: str, request: ListSessions) -> Sessions:
        """Return a page of a replica's sessions."""
        return await self._ask(replica_id, request, Sessions)

    async def end_session(self, replica_id: str, key: int) -> bool:
        """End a session; return False if it has ended already."""
        return (await self._ask(replica_id, EndSession(key=key), Done)).count > 0

    async def _ask(self, replica_id: str, request: Request, kind: type[Answer]) -> Answer:
        subject = operations.to_one(replica_id, type(request))
        datum = await self._control.request(subject, operations.encode(request), ANSWER_TIMEOUT)
        try:
            return operations.decode(kind, datum)
        except msgspec.ValidationError:
            raise BusError("replica_refused", operations.decode(Refused, datum).error) from None


def excess(statuses: list[Status]) -> dict[str, int]:
    """Return by how many clients each replica is above the mean of those that serve; only those that are."""
    serving = [status for status in statuses if not status.draining]
    if not serving:
        return {}
    mean = -(-sum(status.clients for status in serving) // len(serving))
    return {status.replica: status.clients - mean for status in serving if status.clients > mean}
