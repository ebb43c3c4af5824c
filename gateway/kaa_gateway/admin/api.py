"""The management API of one worker, below `/api/v1`: sessions, configuration, log level, certificate.

It is described in openapi.yml. If there are several workers, the supervisor asks each of them and joins the answers
(fleet_api.py). For that, a session's ID begins with the number of its worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from kaa_gateway.admin.common import common_routes, set_level

if TYPE_CHECKING:
    from kaa_gateway.config import Config
    from kaa_gateway.kp.inspection import Inspection

SESSIONS_DEFAULT = 100
SESSIONS_MAX = 1000
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


class WorkerApi:
    """The API of worker number `index`, for its sessions; `current` returns its configuration."""

    def __init__(self, current: Callable[[], Config], index: int, sessions: Inspection) -> None:
        self._current = current
        self._index = index
        self._sessions = sessions

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        return [
            web.get("/api/v1/sessions", self._list, allow_head=False),
            web.get("/api/v1/sessions/{id}", self._show, allow_head=False),
            web.delete("/api/v1/sessions/{id}", self._disconnect),
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

    def _key(self, request: web.Request) -> int:
        matched = SESSION_ID.fullmatch(request.match_info["id"])
        if matched is None or int(matched[1]) != self._index:
            raise web.HTTPNotFound(text=NO_SESSION)
        return int(matched[2], 16)
