"""What a worker uses of the quotas of tenants and application versions, as far as replicas share it."""

from __future__ import annotations

from typing import Protocol


class Rates(Protocol):
    """The messages and bytes a second of all replicas, of which a worker has its share."""

    messages_max: float
    bytes_max: float

    def set_shares(self, message_share: float, byte_share: float) -> None:
        """Set which part of them is this worker's."""
        ...


class Quota(Protocol):
    """A quota, and what this worker has counted for it."""

    month_max: int
    messages_asked: int
    bytes_asked: int
    messages_passed: int

    @property
    def rates(self) -> Rates:
        """Its messages and bytes a second."""
        ...

    def set_month(self, used: int, seconds: float) -> None:
        """Set how many messages have passed this month, over all replicas, and how long it still is."""
        ...


class Population(Protocol):
    """The connections and endpoints of a worker."""

    connections: int
    endpoints: int

    def set_elsewhere(self, connections: int, endpoints: int) -> None:
        """Set what the other workers and replicas have."""
        ...


class Usage(Protocol):
    """A tenant or an application version that has some limit."""

    @property
    def scope(self) -> str:
        """`tenant` or `appVersion`."""
        ...

    @property
    def name(self) -> str:
        """Its ID or name."""
        ...

    @property
    def quota(self) -> Quota | None:
        """None if only its connections or endpoints are limited."""
        ...

    @property
    def population(self) -> Population:
        """Its connections and endpoints."""
        ...
