"""The management server of a gateway with several workers: one port that speaks for all of them.

Each worker serves its own management API on a Unix socket (server.py); here they are asked, and their answers made
one. Metrics keep apart by a label, because a sum would jump when a worker is started again.
"""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kaa_gateway.admin.access import Guard
from kaa_gateway.admin.server import application

ANSWER_TIMEOUT = 5.0
"""Seconds that a worker has to answer."""


class Answer(NamedTuple):
    """What a worker said; status 503 and no body if it said nothing in time."""

    status: int
    body: bytes


class Fleet:
    """The workers as seen by the supervisor: where each is asked, and how often each was started."""

    def __init__(self, sockets: Mapping[int, Path]) -> None:
        self.sockets = sockets
        self.starts = dict.fromkeys(sockets, 0)
        """How often each worker was started."""

    async def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> dict[int, Answer]:
        """The answers of all workers to a request to their management API, by worker."""
        answers = await asyncio.gather(
            *(self.ask_one(index, path, method=method, body=body) for index in self.sockets)
        )
        return dict(zip(self.sockets, answers, strict=True))

    async def ask_one(
        self,
        index: int,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """The answer of one worker."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
        connector = aiohttp.UnixConnector(str(self.sockets[index]))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, f"http://worker{path}", params=query, data=body) as response,
            ):
                return Answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Answer(http.HTTPStatus.SERVICE_UNAVAILABLE, b"")


class FleetServer:
    """Serves `/health/live`, `/health/ready` and `/metrics` of all workers together, and `routes`.

    The whole is ready when each worker has been, and as long as one is: the kernel gives new connections to those that
    listen. `is_stopping` says that it ends.
    """

    def __init__(
        self,
        fleet: Fleet,
        is_stopping: Callable[[], bool],
        routes: Iterable[web.RouteDef] = (),
        guard: Guard | None = None,
    ) -> None:
        self._fleet = fleet
        self._routes = list(routes)
        self._guard = guard or Guard(None)
        self._is_stopping = is_stopping
        self._never_ready = set(fleet.sockets)
        self.registry = CollectorRegistry()
        """What is none of one worker's; who counts it registers it."""
        self.registry.register(_FleetCollector(fleet))
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; OSError if the port is taken."""
        own = [
            web.get("/health/live", self._live),
            web.get("/health/ready", self._ready),
            web.get("/metrics", self._metrics),
        ]
        self._runner = web.AppRunner(application(self._guard, [*own, *self._routes]), access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "UP"})

    async def _ready(self, request: web.Request) -> web.Response:
        answers = await self._fleet.ask("/health/ready")
        workers = {}
        for index, answer in answers.items():
            if answer.status == http.HTTPStatus.OK:
                self._never_ready.discard(index)
            workers[str(index)] = (
                json.loads(answer.body) if answer.body else {"status": "DOWN", "reason": "It does not run"}
            )
        serving = any(answer.status == http.HTTPStatus.OK for answer in answers.values())
        if serving and not self._never_ready and not self._is_stopping():
            return web.json_response({"status": "UP", "workers": workers})
        return web.json_response({"status": "DOWN", "workers": workers}, status=503)

    async def _metrics(self, request: web.Request) -> web.Response:
        answers = await self._fleet.ask("/metrics")
        texts = {
            index: answer.body.decode()
            for index, answer in answers.items()
            if answer.status == http.HTTPStatus.OK
        }
        body = generate_latest(self.registry).decode() + merge_metrics(texts)
        return web.Response(body=body.encode(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _FleetCollector(Collector):
    """What the supervisor itself counts."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        starts = CounterMetricFamily(
            "kaa_gateway_worker_starts", "How often a worker was started.", labels=["worker"]
        )
        for index, count in self._fleet.starts.items():
            starts.add_metric([str(index)], count)
        workers = GaugeMetricFamily(
            "kaa_gateway_workers", "Workers that the configuration asks for.", len(self._fleet.sockets)
        )
        return [workers, starts]


def merge_metrics(texts: Mapping[int, str]) -> str:
    """One exposition in Prometheus's text format of those of several workers, which the label `worker` keeps apart."""
    families: dict[str, list[str]] = {}
    for index, text in texts.items():
        lines: list[str] = []
        is_new = False
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                is_new = name not in families
                lines = families.setdefault(name, [])
            if not line.startswith("#"):
                lines.append(_labelled(line, index))
            elif is_new:
                lines.append(line)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _labelled(sample: str, index: int) -> str:
    """A sample with the label `worker`; a name has neither a brace nor a space."""
    name, space, value = sample.partition(" ")
    bare, brace, labels = sample.partition("{")
    if brace and len(bare) < len(name):
        return f'{bare}{{worker="{index}",{labels}'
    return f'{name}{{worker="{index}"}}{space}{value}'
