"""The parts of the management API that each worker has of its own: its history, its quotas and its log level.

They are described in openapi.yml. If there are several workers, the supervisor asks each of them and joins the answers
(fleet_api.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kaa_gateway.admin.common import common_routes, set_level
from kaa_gateway.admin.history import PERIOD

if TYPE_CHECKING:
    from kaa_gateway.admin.history import History
    from kaa_gateway.config import Config


class WorkerApi:
    """The API of a worker; `current` returns its configuration, `quotas` what it uses of quotas."""

    def __init__(
        self,
        current: Callable[[], Config],
        history: History,
        quotas: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._current = current
        self._history = history
        self._quotas = quotas

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        return [
            web.get("/api/v1/history", self._show_history, allow_head=False),
            web.get("/api/v1/quotas", self._list_quotas, allow_head=False),
            web.put("/api/v1/log", set_level),
            *common_routes(self._current),
        ]

    async def _show_history(self, request: web.Request) -> web.Response:
        return web.json_response({"period": PERIOD, "samples": self._history.samples()})

    async def _list_quotas(self, request: web.Request) -> web.Response:
        return web.json_response({"quotas": self._quotas()})
