"""The management API of one worker, below `/api/v1`: sessions, configuration, log level, certificate.

It is described in openapi.yml. If there are several workers, the supervisor asks each of them and joins the answers
(fleet_api.py). For that, a session's ID begins with the number of its worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from kaa_gateway.admin.common import common_routes, set_level
from kaa_gateway.admin.history import PERIOD
from kaa_gateway.net.admission import address_text

if TYPE_CHECKING:
    from kaa_gateway.admin.history import History
    from kaa_gateway.config import Config
    from kaa_gateway.counters import Counters
    from kaa_gateway.kp.inspection import Inspection

SESSIONS_DEFAULT = 100
SESSIONS_MAX = 1000
ENDINGS_MAX = 100
"""Ended connections in one answer."""
SCANNED_MAX = 20_000
"""Sessions that one request looks at. The event loop serves no device meanwhile."""
TEXT_SIZE_MAX = 256
"""Characters of a client identifier or endpoint ID to look for."""
PROTOCOLS = ("mqtt", "http", "coap", "udp")
SESSION_ID = re.compile(r"([0-9]{1,3})-([0-9a-f]{9})", re.ASCII)
"""The number of the worker, and the session's key."""
POSITION = re.compile(r"([0-9]{1,3})-([0-9]{1,8})", re.ASCII)
"""The number of the worker, and the place in its table where a page begins."""
NO_SESSION = "There is no session with this ID, or it has ended."
DISCONNECTED = "disconnected_by_operator"


class SessionQuery(NamedTuple):
    """The query of a request for a list of sessions."""

    worker: int
    place: int
    limit: int
    protocol: str | None
    client: str | None
    endpoint: str | None

    @classmethod
    def of(cls, request: web.Request) -> SessionQuery:
        """Return the query of a request; 400 says what is wrong with it."""
        query = request.query
        if unknown := sorted(query.keys() - {"from", "limit", "protocol", "client", "endpoint"}):
            raise web.HTTPBadRequest(text=f"unknown parameter: {unknown[0]!r}")
        if twice := sorted(name for name in query if len(query.getall(name)) > 1):
            raise web.HTTPBadRequest(text=f"given twice: {twice[0]}")
        position = POSITION.fullmatch(query.get("from", "0-0"))
        if position is None:
            raise web.HTTPBadRequest(text="from: expected the `next` of an earlier page")
        limit = query.get("limit", str(SESSIONS_DEFAULT))
        if not re.fullmatch(r"[0-9]{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= SESSIONS_MAX:
            raise web.HTTPBadRequest(text=f"limit: expected a number from 1 to {SESSIONS_MAX}")
        protocol = query.get("protocol")
        if protocol is not None and protocol not in PROTOCOLS:
            raise web.HTTPBadRequest(text=f"protocol: expected one of {', '.join(PROTOCOLS)}")
        for name in ("client", "endpoint"):
            if name in query and not 1 <= len(query[name]) <= TEXT_SIZE_MAX:
                raise web.HTTPBadRequest(text=f"{name}: expected 1 to {TEXT_SIZE_MAX} characters")
        return cls(
            int(position[1]),
            int(position[2]),
            int(limit),
            protocol,
            query.get("client"),
            query.get("endpoint"),
        )


def client_of(request: web.Request) -> str | None:
    """Return the client identifier that a request for endings asks for; 400 for any other query."""
    client = request.query.get("client")
    if request.query.keys() - {"client"} or len(request.query) > 1:
        raise web.HTTPBadRequest(text="expected no parameter but client, once")
    if client is not None and not 1 <= len(client) <= TEXT_SIZE_MAX:
        raise web.HTTPBadRequest(text=f"client: expected 1 to {TEXT_SIZE_MAX} characters")
    return client


class WorkerApi:
    """The API of worker number `index`, for its sessions; `current` returns its configuration."""

    def __init__(
        self,
        current: Callable[[], Config],
        index: int,
        sessions: Inspection,
        counters: Counters,
        history: History,
    ) -> None:
        self._current = current
        self._index = index
        self._sessions = sessions
        self._counters = counters
        self._history = history

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        return [
            web.get("/api/v1/sessions", self._list, allow_head=False),
            web.get("/api/v1/sessions/{id}", self._show, allow_head=False),
            web.delete("/api/v1/sessions/{id}", self._disconnect),
            web.get("/api/v1/endings", self._list_endings, allow_head=False),
            web.get("/api/v1/history", self._show_history, allow_head=False),
            web.put("/api/v1/log", set_level),
            *common_routes(self._current),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        query = SessionQuery.of(request)
        index = self._index
        if query.worker != index:
            return web.json_response({"sessions": [], "next": None})
        found, place = self._sessions.page(
            query.place, query.limit, SCANNED_MAX, query.protocol, query.client, query.endpoint
        )
        return web.json_response(
            {
                "sessions": [{"id": f"{index}-{key:09x}", **fields} for key, fields in found],
                "next": None if place is None else f"{index}-{place}",
            }
        )

    async def _show(self, request: web.Request) -> web.Response:
        fields: dict[str, Any] | None = self._sessions.describe(self._key(request))
        if fields is None:
            raise web.HTTPNotFound(text=NO_SESSION)
        return web.json_response({"id": request.match_info["id"], **fields})

    async def _disconnect(self, request: web.Request) -> web.Response:
        if not self._sessions.disconnect(self._key(request), DISCONNECTED):
            raise web.HTTPNotFound(text=NO_SESSION)
        return web.Response(status=204)

    async def _list_endings(self, request: web.Request) -> web.Response:
        client = client_of(request)
        found = [
            {
                "at": _time_text(at),
                "clientId": client_id,
                "peer": address_text(address) if address else "",
                "reason": reason,
            }
            for at, client_id, address, reason in self._counters.recent_endings()
            if client is None or client_id == client
        ]
        return web.json_response({"endings": found[:ENDINGS_MAX]})

    async def _show_history(self, request: web.Request) -> web.Response:
        return web.json_response({"period": PERIOD, "samples": self._history.samples()})

    def _key(self, request: web.Request) -> int:
        matched = SESSION_ID.fullmatch(request.match_info["id"])
        if matched is None or int(matched[1]) != self._index:
            raise web.HTTPNotFound(text=NO_SESSION)
        return int(matched[2], 16)


def _time_text(at: float) -> str:
    """Return a Unix time as RFC 3339 writes it, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
