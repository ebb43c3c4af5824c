"""The management API of several workers: passes each request to the worker that it concerns, or to all of them."""

from __future__ import annotations

import http
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kaa_gateway.admin.api import ENDINGS_MAX, NO_SESSION, SESSION_ID, SessionQuery, client_of
from kaa_gateway.admin.common import common_routes, set_level
from kaa_gateway.admin.history import PERIOD, merged

if TYPE_CHECKING:
    from kaa_gateway.admin.fleet import Answer, Fleet
    from kaa_gateway.config import Config


class FleetApi:
    """The same API as WorkerApi, for all workers of `fleet`."""

    def __init__(self, current: Callable[[], Config], fleet: Fleet) -> None:
        self._current = current
        self._fleet = fleet

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        return [
            web.get("/api/v1/sessions", self._list, allow_head=False),
            web.get("/api/v1/sessions/{id}", self._forward, allow_head=False),
            web.delete("/api/v1/sessions/{id}", self._forward),
            web.get("/api/v1/endings", self._list_endings, allow_head=False),
            web.get("/api/v1/history", self._show_history, allow_head=False),
            web.put("/api/v1/log", self._set_level),
            *common_routes(self._current),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        """Answer with a page of sessions: those of one worker, then those of the next, until it is full."""
        query = SessionQuery.of(request)
        found: list[dict[str, Any]] = []
        position: str | None = f"{query.worker}-{query.place}"
        for index in self._fleet.sockets:
            if index < query.worker:
                continue
            if len(found) == query.limit:
                break
            parameters = {
                **request.query,
                "from": position or f"{index}-0",
                "limit": str(query.limit - len(found)),
            }
            answer = await self._fleet.ask_one(index, request.path, parameters)
            # A worker that does not answer is being started again, and has no sessions yet.
            page = (
                json.loads(answer.body)
                if answer.status == http.HTTPStatus.OK
                else {"sessions": [], "next": None}
            )
            found += page["sessions"]
            position = page["next"] or (f"{index + 1}-0" if index + 1 in self._fleet.sockets else None)
            if page["next"]:
                break
        return web.json_response({"sessions": found, "next": position})

    async def _list_endings(self, request: web.Request) -> web.Response:
        """Answer with the newest endings of all workers."""
        client_of(request)
        endings = [each for answer in await self._ask_all(request) for each in answer["endings"]]
        endings.sort(key=lambda each: str(each["at"]), reverse=True)
        return web.json_response({"endings": endings[:ENDINGS_MAX]})

    async def _show_history(self, request: web.Request) -> web.Response:
        answers = await self._ask_all(request)
        return web.json_response({"period": PERIOD, "samples": merged(each["samples"] for each in answers)})

    async def _ask_all(self, request: web.Request) -> list[dict[str, Any]]:
        """Return the answers of the workers to the same request; one that is being started again has none."""
        answers = await self._fleet.ask(request.path_qs)
        return [json.loads(each.body) for each in answers.values() if each.status == http.HTTPStatus.OK]

    async def _forward(self, request: web.Request) -> web.Response:
        """Pass a request to the worker that a session's ID names."""
        matched = SESSION_ID.fullmatch(request.match_info["id"])
        if matched is None or int(matched[1]) not in self._fleet.sockets:
            raise web.HTTPNotFound(text=NO_SESSION)
        return _passed_on(await self._fleet.ask_one(int(matched[1]), request.path, method=request.method))

    async def _set_level(self, request: web.Request) -> web.Response:
        """Set the log level here and in all workers; 502 if one of them has not confirmed it."""
        response = await set_level(request)
        answers = await self._fleet.ask(request.path, "PUT", await request.read())
        if silent := [str(index) for index, answer in answers.items() if answer.status != http.HTTPStatus.OK]:
            raise web.HTTPBadGateway(
                text=f"The level is not set in worker {', '.join(silent)}, which did not answer."
            )
        return response


def _passed_on(answer: Answer) -> web.Response:
    if answer.status == http.HTTPStatus.NO_CONTENT:
        return web.Response(status=answer.status)
    kind = "application/json" if answer.status < http.HTTPStatus.BAD_REQUEST else "application/problem+json"
    return web.Response(status=answer.status, body=answer.body, content_type=kind)
