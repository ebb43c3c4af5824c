"""The replicas of the service instance and their sessions, below `/api/v1`: all in one view.

It is described in openapi.yml. A worker on its own and the supervisor of several serve the same, and differ in how they
reach the replicas. With NATS away, those of this gateway are shown.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from aiohttp import web

from kaa_gateway.bus import subjects
from kaa_gateway.errors import BusError
from kaa_gateway.fleet.operations import ListEndings, ListSessions

if TYPE_CHECKING:
    from kaa_gateway.fleet.channel import Found
    from kaa_gateway.fleet.operations import Status
    from kaa_gateway.fleet.replicas import Replicas

SESSIONS_DEFAULT = 100
SESSIONS_MAX = 1000
ENDINGS_MAX = 100
"""Ended connections in one answer."""
ASKED_MAX = 16
"""Replicas that one request for sessions asks."""
ASKING_TIME = 8.0
"""Seconds after which it asks no further replica: one that hangs takes some."""
PAGE = 500
"""Sessions that a replica is asked for at once."""
KNOWN_TIME = 2.0
"""Seconds for which the list of replicas is taken as known."""
TEXT_SIZE_MAX = 256
"""Characters of a client identifier or endpoint ID to look for."""
PROTOCOL = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
"""The name of a protocol, which may be that of a plug-in."""
SESSION_KEY = re.compile(r"[0-9a-f]{9}", re.ASCII)
POSITION = re.compile(r"([A-Za-z0-9_-]{1,128})/([0-9]{1,8})", re.ASCII)
"""A replica, and the place in its table where a page begins."""
NO_SESSION = "There is no session with this ID, or it has ended."


class SessionQuery(NamedTuple):
    """The query of a request for a list of sessions."""

    replica: str
    slot: int
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
        position = POSITION.fullmatch(query["from"]) if "from" in query else None
        if position is None and "from" in query:
            raise web.HTTPBadRequest(text="from: expected the `next` of an earlier page")
        limit = query.get("limit", str(SESSIONS_DEFAULT))
        if not re.fullmatch(r"[0-9]{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= SESSIONS_MAX:
            raise web.HTTPBadRequest(text=f"limit: expected a number from 1 to {SESSIONS_MAX}")
        protocol = query.get("protocol")
        if protocol is not None and not PROTOCOL.fullmatch(protocol):
            raise web.HTTPBadRequest(text="protocol: expected a name such as mqtt")
        for name in ("client", "endpoint"):
            if name in query and not 1 <= len(query[name]) <= TEXT_SIZE_MAX:
                raise web.HTTPBadRequest(text=f"{name}: expected 1 to {TEXT_SIZE_MAX} characters")
        return cls(
            position[1] if position else "",
            int(position[2]) if position else 0,
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


class ReplicasApi:
    """Serves what `replicas` answer."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._finding: asyncio.Task[Found] | None = None
        self._known_until = 0.0

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        return [
            web.get("/api/v1/replicas", self._list_replicas, allow_head=False),
            web.get("/api/v1/sessions", self._list_sessions, allow_head=False),
            web.get("/api/v1/sessions/{replica}/{key}", self._show, allow_head=False),
            web.delete("/api/v1/sessions/{replica}/{key}", self._disconnect),
            web.get("/api/v1/endings", self._list_endings, allow_head=False),
        ]

    async def _list_replicas(self, request: web.Request) -> web.Response:
        found = await self._find()
        return web.json_response(
            {"replicas": [_shown(status) for status in found.statuses], "complete": found.complete}
        )

    async def _list_sessions(self, request: web.Request) -> web.Response:
        """Answer with a page of sessions: those of one replica, then those of the next, until it is full."""
        query = SessionQuery.of(request)
        known = await self._find()
        complete = known.complete
        loop = asyncio.get_running_loop()
        latest = loop.time() + ASKING_TIME
        found: list[dict[str, Any]] = []
        following = None
        names = [status.replica for status in known.statuses if status.replica >= query.replica]
        for asked, name in enumerate(names):
            if len(found) == query.limit or asked == ASKED_MAX or loop.time() > latest:
                following = f"{name}/0"
                break
            try:
                page = await self._replicas.page(
                    name,
                    ListSessions(
                        slot=query.slot if name == query.replica else 0,
                        limit=min(PAGE, query.limit - len(found)),
                        protocol=query.protocol,
                        client=query.client,
                        endpoint=query.endpoint,
                    ),
                )
            except BusError:
                complete = False
                continue
            found += [{**each, "id": f"{name}/{each['id']}", "replica": name} for each in page.sessions]
            if page.next is not None:
                following = f"{name}/{page.next}"
                break
        return web.json_response({"sessions": found, "next": following, "complete": complete})

    async def _show(self, request: web.Request) -> web.Response:
        replica, key = _session_of(request)
        try:
            fields = await self._replicas.show_session(replica, key)
        except BusError as error:
            raise _not_answered(error) from error
        if fields is None:
            raise web.HTTPNotFound(text=NO_SESSION)
        return web.json_response({**fields, "id": f"{replica}/{fields['id']}", "replica": replica})

    async def _disconnect(self, request: web.Request) -> web.Response:
        replica, key = _session_of(request)
        try:
            ended = await self._replicas.end_session(replica, key)
        except BusError as error:
            raise _not_answered(error) from error
        if not ended:
            raise web.HTTPNotFound(text=NO_SESSION)
        return web.Response(status=204)

    async def _list_endings(self, request: web.Request) -> web.Response:
        """Answer with the newest endings of all replicas."""
        query = ListEndings(client=client_of(request), limit=ENDINGS_MAX)
        known = await self._find()
        complete = known.complete
        answers = await asyncio.gather(
            *(self._replicas.endings(status.replica, query) for status in known.statuses),
            return_exceptions=True,
        )
        found = []
        for status, answer in zip(known.statuses, answers, strict=True):
            if isinstance(answer, BusError):
                complete = False
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += [{**each, "replica": status.replica} for each in answer]
        found.sort(key=lambda each: str(each["at"]), reverse=True)
        return web.json_response({"endings": found[:ENDINGS_MAX], "complete": complete})

    async def _find(self) -> Found:
        """Find the replicas. Requests that come together, or soon one after the other, share what is found."""
        loop = asyncio.get_running_loop()
        if self._finding is None or (self._finding.done() and loop.time() > self._known_until):
            self._finding = loop.create_task(self._replicas.find())
            self._finding.add_done_callback(self._found)
        try:
            return await asyncio.shield(self._finding)
        except BusError as error:
            raise _not_answered(error) from error

    def _found(self, finding: asyncio.Task[Found]) -> None:
        failed = finding.cancelled() or finding.exception() is not None
        self._known_until = 0.0 if failed else finding.get_loop().time() + KNOWN_TIME


def _session_of(request: web.Request) -> tuple[str, int]:
    """Return the replica and the key of the session that a request names; 404 if they cannot be one."""
    replica, key = request.match_info["replica"], request.match_info["key"]
    if not subjects.NAME.fullmatch(replica) or not SESSION_KEY.fullmatch(key):
        raise web.HTTPNotFound(text=NO_SESSION)
    return replica, int(key, 16)


def _not_answered(error: BusError) -> web.HTTPException:
    """Return the error of a replica that has gone, or does not answer."""
    if error.reason == "nats_no_responders":
        return web.HTTPNotFound(text=NO_SESSION)
    return web.HTTPServiceUnavailable(text=f"The replica does not answer: {error.detail or error}")


def _shown(status: Status) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(status)
    fields["state"] = "draining" if fields.pop("draining") else "serving"
    return fields
