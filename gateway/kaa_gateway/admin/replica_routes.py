"""What a worker serves on its Unix socket for its supervisor: the requests of a `Channel` to replicas."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from kaa_gateway.errors import BusError

if TYPE_CHECKING:
    from kaa_gateway.fleet.channel import Channel

STATUSES = {
    "nats_away": http.HTTPStatus.SERVICE_UNAVAILABLE,
    "nats_no_responders": http.HTTPStatus.NOT_FOUND,
}
"""What the supervisor is told if a replica cannot be asked, or is not there."""


class ReplicaRoutes:
    """Passes the requests of the supervisor on to `channel`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        return [
            web.get("/replicas", self._find, allow_head=False),
            web.post("/replicas/{replica}/{kind}", self._ask),
        ]

    async def _find(self, request: web.Request) -> web.Response:
        found = await self._channel.find()
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    async def _ask(self, request: web.Request) -> web.Response:
        try:
            answer = await self._channel.ask(
                request.match_info["replica"], request.match_info["kind"], await request.read()
            )
        except BusError as error:
            return web.Response(
                status=STATUSES.get(error.reason, http.HTTPStatus.BAD_GATEWAY),
                text=error.detail or str(error),
            )
        return web.Response(body=answer, content_type="application/json")
