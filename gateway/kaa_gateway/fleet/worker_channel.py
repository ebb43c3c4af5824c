"""The replicas of a service instance, as one of them asks them: itself without NATS, the others over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.errors import BusError
from kaa_gateway.fleet.channel import Found

if TYPE_CHECKING:
    from kaa_gateway.fleet.member import Member
    from kaa_gateway.fleet.nats_channel import NatsChannel


class WorkerChannel:
    """Asks the worker of this process itself, and the others over NATS."""

    def __init__(self, member: Member, others: NatsChannel) -> None:
        self._member = member
        self._others = others

    async def find(self) -> Found:
        """Find the replicas, this one first; only this one if NATS is away."""
        own = self._member.status()
        try:
            found = await self._others.find()
        except BusError:
            return Found([own], False)
        return Found([own, *found.statuses], found.complete)

    async def ask(self, replica_id: str, kind: str, datum: bytes) -> bytes:
        """Return the answer of one replica to a request of this kind. BusError if there is none."""
        if replica_id == self._member.replica_id:
            return self._member.answer(kind, datum)
        return await self._others.ask(replica_id, kind, datum)
