"""A worker as a replica that operators ask and drain over NATS."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import structlog

from kaa_gateway import __version__
from kaa_gateway.app.redirecting import redirect_clients
from kaa_gateway.fleet.operations import (
    Done,
    Drain,
    Endings,
    EndSession,
    ListEndings,
    ListSessions,
    Sessions,
    Shed,
    ShowSession,
    Status,
)
from kaa_gateway.net.admission import address_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.app.listeners import Listeners
    from kaa_gateway.config.keys import Limits
    from kaa_gateway.counters import Counters
    from kaa_gateway.kp.inspection import Inspection
    from kaa_gateway.kp.sessions import Sessions as SessionTable

log = structlog.get_logger("gateway.fleet")

SCANNED_MAX = 20_000
"""Sessions that one request looks at. The event loop serves no device meanwhile."""
PAGE_MAX = 500
"""Sessions in an answer, which must fit into a message of NATS."""
ENDINGS_MAX = 100
"""Ended connections in an answer."""
DISCONNECTED = "disconnected_by_operator"


class WorkerReplica:
    """What operators may have a worker do."""

    def __init__(
        self,
        replica_id: str,
        listeners: Listeners,
        table: SessionTable,
        inspection: Inspection,
        counters: Counters,
        limits: Callable[[], Limits],
        answer_size: Callable[[], int],
    ) -> None:
        self._replica_id = replica_id
        self._listeners = listeners
        self._table = table
        self._inspection = inspection
        self._counters = counters
        self._limits = limits
        self._answer_size = answer_size
        self._redirecting: asyncio.Task[None] | None = None
        self.draining = False
        """It accepts nothing more."""

    def status(self) -> Status:
        """Return how the worker is."""
        totals = self._counters.by_version()
        return Status(
            replica=self._replica_id,
            version=__version__,
            connections=self._listeners.connection_count(),
            clients=self._listeners.client_count(),
            sessions=self._table.count,
            endpoints=len(self._table.endpoints),
            draining=self.draining,
            messages_in=sum(totals["messages_in"].values()),
            messages_out=sum(totals["messages_out"].values()),
        )

    def drain(self, request: Drain) -> Done:
        """Accept nothing more, and begin to send the clients away."""
        if not self.draining:
            self.draining = True
            self._listeners.stop_accepting()
        self._begin(self._rate(request.rate), None, request.permanent)
        return Done(count=self._listeners.client_count())

    def shed(self, request: Shed) -> Done:
        """Begin to send some clients to other replicas."""
        count = max(0, min(request.count, self._listeners.client_count()))
        if not self.draining:
            self._begin(self._rate(request.rate), count, request.permanent)
        return Done(count=0 if self.draining else count)

    def list_sessions(self, request: ListSessions) -> Sessions:
        """Return a page of sessions."""
        found, following = self._inspection.page(
            max(0, request.slot),
            max(1, min(request.limit, PAGE_MAX)),
            SCANNED_MAX,
            request.protocol,
            request.client,
            request.endpoint,
            self._answer_size(),
        )
        return Sessions(
            replica=self._replica_id,
            sessions=[_shown(key, fields) for key, fields in found],
            next=following,
        )

    def show_session(self, request: ShowSession) -> Sessions:
        """Return one session, or none."""
        fields = self._inspection.describe(request.key)
        sessions = [] if fields is None else [_shown(request.key, fields)]
        return Sessions(replica=self._replica_id, sessions=sessions, next=None)

    def end_session(self, request: EndSession) -> Done:
        """End a session."""
        return Done(count=int(self._inspection.disconnect(request.key, DISCONNECTED)))

    def list_endings(self, request: ListEndings) -> Endings:
        """Return the newest connections that have ended."""
        found = (
            {
                "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
                "clientId": client_id,
                "peer": address_text(address) if address else "",
                "reason": reason,
            }
            for at, client_id, address, reason in self._counters.recent_endings()
            if request.client is None or client_id == request.client
        )
        limit = max(1, min(request.limit, ENDINGS_MAX))
        return Endings(replica=self._replica_id, endings=list(islice(found, limit)))

    async def stop(self) -> None:
        """Stop sending clients away."""
        if self._redirecting is not None:
            self._redirecting.cancel()
            await asyncio.wait({self._redirecting})

    def _rate(self, asked: int | None) -> int:
        return self._limits().redirects_per_second if asked is None else max(0, asked)

    def _begin(self, rate: float, count: int | None, permanent: bool) -> None:
        if self._redirecting is not None:
            self._redirecting.cancel()
        self._redirecting = asyncio.get_running_loop().create_task(self._redirect(rate, count, permanent))

    async def _redirect(self, rate: float, count: int | None, permanent: bool) -> None:
        sent = await redirect_clients(self._listeners, rate, count=count, permanent=permanent)
        if self.draining:
            # Those without a connection, and HTTP, last: they do not wait for anybody.
            self._listeners.begin_drain()
        log.info("clients sent to other replicas", count=sent, draining=self.draining)


def _shown(key: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Return a session as an answer has it."""
    return {"id": f"{key:09x}", **fields}
