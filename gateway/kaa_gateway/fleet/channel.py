"""A way by which requests reach replicas: over NATS, or, for those of this gateway, without it."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from kaa_gateway.fleet.operations import GetStatus, Status

STATUS = GetStatus.__name__


class Found(Struct, frozen=True):
    """The replicas that answer, and whether all could be asked. They may be there twice."""

    statuses: list[Status]
    complete: bool


class Channel(Protocol):
    """Carries requests to replicas."""

    async def find(self) -> Found:
        """Find the replicas. BusError if none can be asked."""
        ...

    async def ask(self, replica_id: str, kind: str, datum: bytes) -> bytes:
        """Return the answer of one replica to a request of this kind. BusError if there is none."""
        ...
