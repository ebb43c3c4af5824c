"""What a worker shares of its quotas with the other workers and replicas, and what operators see of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from kaa_gateway.fleet.endpoint_months import EndpointMonthCounters
from kaa_gateway.fleet.months import MonthCounters
from kaa_gateway.fleet.quota_sharing import QuotaSharing

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.config import Config
    from kaa_gateway.counters import Counters
    from kaa_gateway.kp.quotas import Quotas, Usage


class SharedQuotas:
    """The sharing of one worker's quotas."""

    def __init__(
        self, config: Config, control: Control, replica_id: str, quotas: Quotas, counters: Counters
    ) -> None:
        self._replica_id = replica_id
        self._quotas = quotas
        instance = config.service.instance.name
        self._parts = (
            QuotaSharing(control, instance, replica_id, quotas.limited, config.workers, counters.add),
            MonthCounters(control, instance, quotas.limited, config.quotas.copies),
            EndpointMonthCounters(control, instance, quotas.months_of_endpoints, config.quotas.copies),
        )

    def start(self) -> None:
        """Begin to share."""
        for part in self._parts:
            part.start()

    async def stop(self) -> None:
        """End sharing."""
        await asyncio.gather(*(part.stop() for part in self._parts))

    def describe(self) -> list[dict[str, Any]]:
        """Return what this worker has counted for each limited tenant and application version, as JSON values."""
        at = time.time()
        return [
            {"replica": self._replica_id, "at": at, **_described(usage)} for usage in self._quotas.limited()
        ]


def _described(usage: Usage) -> dict[str, Any]:
    population = usage.population
    described: dict[str, Any] = {
        "scope": usage.scope,
        "name": usage.name,
        "connections": population.connections,
        "connectionsElsewhere": population.connections_elsewhere,
        "connectionsMax": population.connections_max,
        "endpoints": population.endpoints,
        "endpointsElsewhere": population.endpoints_elsewhere,
        "endpointsMax": population.endpoints_max,
    }
    if (quota := usage.quota) is not None:
        described |= {
            "messagesPerSecond": quota.rates.messages_max,
            "messageShare": quota.rates.message_share,
            "bytesPerSecond": quota.rates.bytes_max,
            "byteShare": quota.rates.byte_share,
            "messagesPerMonth": quota.month_max,
            "messagesLeftOfMonth": max(quota.left_of_month(), 0) if quota.month_max else None,
            "messagesPassed": quota.messages_passed,
            "messagesRefused": quota.messages_asked - quota.messages_passed,
            "bytesPassed": quota.bytes_passed,
        }
    return described
