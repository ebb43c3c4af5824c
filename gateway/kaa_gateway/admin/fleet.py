"""The supervisor's access to its workers: each serves its management API on a Unix socket (server.py)."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import aiohttp

ANSWER_TIMEOUT = 5.0
"""Seconds that a worker has to answer."""


class Answer(NamedTuple):
    """The answer of a worker; status 503 without a body if it did not answer in time."""

    status: int
    body: bytes


class Fleet:
    """The workers: asks their management APIs."""

    def __init__(self, sockets: Mapping[int, Path]) -> None:
        self.sockets = sockets

    async def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> dict[int, Answer]:
        """Return the answers of all workers to a request to their management API, by worker."""
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
        """Return the answer of one worker."""
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
