"""The replicas of a service instance, as the supervisor of several workers asks them: through its workers.

Its own workers are asked directly, and so are also there while NATS is away. The others are asked through one of them.
"""

from __future__ import annotations

import http
from typing import TYPE_CHECKING

from kaa_gateway.errors import BusError
from kaa_gateway.fleet import operations
from kaa_gateway.fleet.channel import STATUS, Found

if TYPE_CHECKING:
    from kaa_gateway.admin.fleet import Fleet


class WorkersChannel:
    """Asks replicas through the workers of `fleet`, whose names are `names`."""

    def __init__(self, fleet: Fleet, names: dict[str, int]) -> None:
        self._fleet = fleet
        self._names = names

    async def find(self) -> Found:
        """Find the replicas, the workers of this gateway first."""
        statuses = []
        datum = operations.encode(operations.GetStatus())
        for name, index in self._names.items():
            answer = await self._fleet.ask_one(index, _path(name, STATUS), method="POST", body=datum)
            if answer.status == http.HTTPStatus.OK:
                statuses.append(operations.decode(operations.Status, answer.body))
        for index in self._names.values():
            answer = await self._fleet.ask_one(index, "/replicas")
            if answer.status == http.HTTPStatus.OK:
                others = operations.decode(Found, answer.body)
                if others.complete:
                    return Found([*statuses, *others.statuses], True)
        return Found(statuses, False)

    async def ask(self, replica_id: str, kind: str, datum: bytes) -> bytes:
        """Return the answer of one replica to a request of this kind. BusError if there is none."""
        own = self._names.get(replica_id)
        for index in self._names.values() if own is None else (own,):
            answer = await self._fleet.ask_one(index, _path(replica_id, kind), method="POST", body=datum)
            if answer.status == http.HTTPStatus.OK:
                return answer.body
            if answer.status == http.HTTPStatus.NOT_FOUND:
                raise BusError("nats_no_responders", answer.body.decode())
            if answer.status == http.HTTPStatus.BAD_GATEWAY:
                raise BusError("replica_silent", answer.body.decode())
        raise BusError("replica_silent", "no worker of this gateway can ask it")


def _path(replica_id: str, kind: str) -> str:
    return f"/replicas/{replica_id}/{kind}"
