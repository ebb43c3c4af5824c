"""All replicas of a gateway instance, as an operator asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from kaa_gateway.bus import subjects
from kaa_gateway.errors import UNDECODABLE, BusError
from kaa_gateway.fleet import operations
from kaa_gateway.fleet.channel import Found
from kaa_gateway.fleet.operations import (
    Done,
    Drain,
    Endings,
    EndSession,
    GetStatus,
    ListEndings,
    ListSessions,
    Refused,
    Request,
    Sessions,
    Shed,
    ShowSession,
    Status,
)

if TYPE_CHECKING:
    from kaa_gateway.fleet.channel import Channel

Answer = TypeVar("Answer", bound=Struct)


class Replicas:
    """The replicas of a gateway instance, which `channel` reaches."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def find(self) -> Found:
        """Find the replicas that answer, and list them by name. BusError if none can be asked."""
        found = await self._channel.find()
        by_name: dict[str, Status] = {}
        for status in found.statuses:
            by_name.setdefault(status.replica, status)
        return Found([by_name[name] for name in sorted(by_name)], found.complete)

    async def all(self) -> list[Status]:
        """Return the replicas that answer, by name. BusError if none can be asked."""
        return (await self.find()).statuses

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

    async def show_session(self, replica_id: str, key: int) -> dict[str, Any] | None:
        """Return a session; None if it has ended."""
        found = await self._ask(replica_id, ShowSession(key=key), Sessions)
        return found.sessions[0] if found.sessions else None

    async def endings(self, replica_id: str, request: ListEndings) -> list[dict[str, Any]]:
        """Return the newest connections of a replica that have ended."""
        return (await self._ask(replica_id, request, Endings)).endings

    async def end_session(self, replica_id: str, key: int) -> bool:
        """End a session; return False if it has ended already."""
        return (await self._ask(replica_id, EndSession(key=key), Done)).count > 0

    async def _ask(self, replica_id: str, request: Request, kind: type[Answer]) -> Answer:
        if not subjects.NAME.fullmatch(replica_id):
            raise BusError("no_replica", f"{replica_id!r} is no name of a replica")
        try:
            datum = await self._channel.ask(replica_id, type(request).__name__, operations.encode(request))
        except BusError as error:
            if error.reason != "nats_no_responders":
                raise
            raise BusError(
                error.reason, f"no replica {replica_id!r} answers; `kaa-gateway replicas` shows those that do"
            ) from error
        try:
            return operations.decode(kind, datum)
        except UNDECODABLE:
            raise BusError("replica_refused", _refusal(datum)) from None


def _refusal(datum: bytes) -> str:
    """Return why a replica has refused a request."""
    try:
        return operations.decode(Refused, datum).error
    except UNDECODABLE:
        return "the answer of the replica cannot be read"


def excess(statuses: list[Status]) -> dict[str, int]:
    """Return by how many clients each replica is above the mean of those that serve; only those that are."""
    serving = [status for status in statuses if not status.draining]
    if not serving:
        return {}
    mean = -(-sum(status.clients for status in serving) // len(serving))
    return {status.replica: status.clients - mean for status in serving if status.clients > mean}
