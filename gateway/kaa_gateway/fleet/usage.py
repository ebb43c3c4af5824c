"""What a worker uses of the quotas of tenants and application versions, as far as replicas share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


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


class EndpointQuota(Protocol):
    """The quota of an endpoint whose month is limited."""

    messages_passed: int
    messages_counted: int

    def set_month(self, used: int, seconds: float) -> None:
        """See `Quota.set_month`."""
        ...


class EndpointMonths(Protocol):
    """The endpoints of an application version whose month is limited, in shards."""

    shard_count: int

    def look(self, number: int) -> Literal["now", "soon", "never"]:
        """Return when a shard must be counted."""
        ...

    def quotas(self, number: int) -> Mapping[str, EndpointQuota]:
        """Return the quotas of a shard, by endpoint ID."""
        ...

    def forget_counts(self) -> None:
        """Note that what was counted is of a month that is over."""
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
