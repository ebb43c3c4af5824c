"""What WorkerApi serves for one worker, for several: each request is passed to all of them."""

from __future__ import annotations

import http
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kaa_gateway.admin.common import common_routes, set_level
from kaa_gateway.admin.history import PERIOD, merged

if TYPE_CHECKING:
    from kaa_gateway.admin.fleet import Fleet
    from kaa_gateway.config import Config


class FleetApi:
    """The same API as WorkerApi, for all workers of `fleet`."""

    def __init__(self, current: Callable[[], Config], fleet: Fleet) -> None:
        self._current = current
        self._fleet = fleet

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        return [
            web.get("/api/v1/history", self._show_history, allow_head=False),
            web.get("/api/v1/quotas", self._list_quotas, allow_head=False),
            web.put("/api/v1/log", self._set_level),
            *common_routes(self._current),
        ]

    async def _show_history(self, request: web.Request) -> web.Response:
        answers = await self._ask_all(request)
        return web.json_response({"period": PERIOD, "samples": merged(each["samples"] for each in answers)})

    async def _list_quotas(self, request: web.Request) -> web.Response:
        """Answer with what each worker uses of the quotas."""
        answers = await self._ask_all(request)
        return web.json_response({"quotas": [each for answer in answers for each in answer["quotas"]]})

    async def _ask_all(self, request: web.Request) -> list[dict[str, Any]]:
        """Return the answers of the workers to the same request; one that is being started again has none."""
        answers = await self._fleet.ask(request.path_qs)
        return [json.loads(each.body) for each in answers.values() if each.status == http.HTTPStatus.OK]

    async def _set_level(self, request: web.Request) -> web.Response:
        """Set the log level here and in all workers; 502 if one of them has not confirmed it."""
        response = await set_level(request)
        answers = await self._fleet.ask(request.path, "PUT", await request.read())
        if silent := [str(index) for index, answer in answers.items() if answer.status != http.HTTPStatus.OK]:
            raise web.HTTPBadGateway(
                text=f"The level is not set in worker {', '.join(silent)}, which did not answer."
            )
        return response
