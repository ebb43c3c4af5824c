"""The replicas of a service instance, asked over NATS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.bus import subjects
from kaa_gateway.errors import UNDECODABLE
from kaa_gateway.fleet import operations
from kaa_gateway.fleet.channel import STATUS, Found

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control

ANSWER_TIMEOUT = 4.0
"""Seconds that one replica has to answer."""
DISCOVERY_TIME = 0.5
"""Seconds for which answers of replicas that are not known are awaited."""
REPLICAS_MAX = 500
"""Replicas whose answers are taken."""


class NatsChannel:
    """Asks the replicas of `instance` over `control`."""

    def __init__(self, control: Control, instance: str) -> None:
        self._control = control
        self._instance = instance

    async def find(self) -> Found:
        """Find the replicas. BusError if NATS is away."""
        subject = operations.to_all(self._instance, STATUS)
        request = operations.encode(operations.GetStatus())
        statuses = []
        for answer in await self._control.gather(subject, request, DISCOVERY_TIME, REPLICAS_MAX):
            try:
                status = operations.decode(operations.Status, answer)
            except UNDECODABLE:
                continue  # of another version
            if subjects.NAME.fullmatch(status.replica):
                statuses.append(status)
        return Found(statuses, True)

    async def ask(self, replica_id: str, kind: str, datum: bytes) -> bytes:
        """Return the answer of one replica to a request of this kind. BusError if there is none."""
        return await self._control.request(operations.to_one(replica_id, kind), datum, ANSWER_TIMEOUT)
