"""What replicas share stops also if a cancellation is lost, as asyncio.wait_for of Python 3.11 loses it (bpo-37658)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from kaa_gateway.fleet.endpoint_months import EndpointMonthCounters
from kaa_gateway.fleet.months import MonthCounters
from kaa_gateway.fleet.presence import PresenceWriter
from kaa_gateway.fleet.quota_sharing import QuotaSharing
from kaa_gateway.kp.quotas import Quotas

NO_MESSAGE = b'{"error": {"err_code": 10037}}'


class Control:
    """A control connection on which an operation is under way when it is cancelled, and ends all the same."""

    connected = True
    jetstream_domain = None

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self._swallowed = False

    def subscribe(self, subject: str, handle: Callable[[str, bytes], None]) -> None: ...

    def when_reconnected(self, callback: Callable[[], None]) -> None: ...

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        await self._swallow()

    async def request(
        self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> bytes:
        await self._swallow()
        return NO_MESSAGE if ".MSG.GET." in subject else b"{}"

    async def _swallow(self) -> None:
        if self._swallowed:
            return
        self.began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self._swallowed = True


@dataclass
class Limits:
    messages_per_second: float = 0
    bytes_per_second: float = 0
    messages_per_month: int = 10
    connections: int = 0
    endpoints: int = 0


class Due:
    """An application version whose shards are always due."""

    shard_count = 1

    def look(self, number: int) -> str:
        return "now"

    def quotas(self, number: int) -> dict[str, Any]:
        return {}

    def forget_counts(self) -> None: ...


def parts(control: Any) -> dict[str, Any]:
    quotas = Quotas()
    quotas.configure({"acme": Limits()}, {}, {}, {"app": "acme"})
    months: Any = {"app": Due()}
    return {
        "months": MonthCounters(control, "kpc", quotas.limited, 1),
        "endpoint months": EndpointMonthCounters(control, "kpc", lambda: months, 1),
        "quotas": QuotaSharing(control, "kpc", "one", quotas.limited, 1, lambda event, reason: None),
        "presence": PresenceWriter(
            control, "kpc", "one", lease=3, copies=1, look=lambda endpoint: None, everyone=list
        ),
    }


@pytest.mark.parametrize("name", ["months", "endpoint months", "quotas", "presence"])
async def test_it_stops_although_a_cancellation_is_lost(name: str) -> None:
    control = Control()
    part = parts(control)[name]
    part.start()
    await control.began.wait()
    await part.stop()
