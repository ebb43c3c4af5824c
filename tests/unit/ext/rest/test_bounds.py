"""The bounds of requests around an application: how many, and for how long their bodies may take."""

import asyncio
from typing import Any

import httpx
import pytest
from kaa_ext.rest import bounds
from kaa_ext.rest.bounds import Bounds


async def test_more_requests_than_the_bound_are_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "REQUESTS_MAX", 2)
    going_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await going_on.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with client(app) as http:
        running = [asyncio.create_task(http.get("/")) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await http.get("/")
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["title"] == "Service Unavailable"
        going_on.set()
        assert [each.status_code for each in await asyncio.gather(*running)] == [204, 204]
        assert (await http.get("/")).status_code == 204


async def test_a_failing_request_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "REQUESTS_MAX", 1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("failed")

    async with client(app) as http:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="failed"):
                await http.get("/")


def client(app: Any) -> httpx.AsyncClient:
    bounded: Any = Bounds(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(bounded), base_url="http://localhost")
