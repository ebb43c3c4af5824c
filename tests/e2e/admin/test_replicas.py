"""All replicas in one view: two gateways on one NATS, one of them with two workers, asked over the port of each."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import nats
import pytest
from nats.aio.msg import Msg

from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, POLL_S, NatsServer

TIMEOUT_S = 60.0
Pair = tuple[GatewayProcess, GatewayProcess]
NAMES = ["one", "two-0", "two-1"]
CLIENTS = 9


def named(name: str, workers: int = 1) -> dict[str, Any]:
    return {"service": {"instance": {"replica": {"id": name}}}, "kaa": {"kpc": {"workers": workers}}}


@contextmanager
def pair(url: str) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    with GatewayProcess(url, named("one")) as one, GatewayProcess(url, named("two", 2)) as two:
        yield one, two
        for process in (one, two):
            assert "Traceback" not in process.log, process.log


@pytest.fixture(scope="module")
def gateways(shared_nats: NatsServer) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """Two gateways that the tests leave running."""
    with pair(shared_nats.url) as both:
        yield both


@asynccontextmanager
async def api_of(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://{HOST}:{gateway.admin_port}/api/v1"
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
        yield client


async def get(api: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def sessions(api: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """All pages, of which none may be incomplete."""
    found: list[dict[str, Any]] = []
    while True:
        page = await get(api, "/sessions", **query)
        assert page["complete"]
        assert len(page["sessions"]) <= query.get("limit", 100)
        found += page["sessions"]
        if page["next"] is None:
            return found
        query["from"] = page["next"]


async def until(asked: Callable[[], Any], expected: Any) -> None:
    """Wait until a request has the expected answer."""
    async with asyncio.timeout(TIMEOUT_S):
        while (found := await asked()) != expected:
            print(found)
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def clients(*gateways: GatewayProcess) -> AsyncIterator[dict[str, Any]]:
    """`CLIENTS` devices on each gateway, by client identifier."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(mqtt_client(gateway.mqtt_port, name))
            for number, gateway in enumerate(gateways)
            for name in (f"device-{number}-{each}" for each in range(CLIENTS))
        }


async def test_each_gateway_shows_the_sessions_of_all(gateways: Pair) -> None:
    one, two = gateways
    async with clients(one, two) as devices, api_of(one) as first, api_of(two) as second:
        for api in (first, second):
            found = await sessions(api, limit=4)
            assert sorted(each["clientId"] for each in found) == sorted(devices)
            for each in found:
                assert each["id"].startswith(f"{each['replica']}/")
                assert each["replica"].startswith(
                    "one" if each["clientId"].startswith("device-0") else "two-"
                )
            (there,) = await sessions(api, client="device-1-3")
            assert await get(api, f"/sessions/{there['id']}") == there
            replicas = await get(api, "/replicas")
            assert replicas["complete"]
            assert [each["replica"] for each in replicas["replicas"]] == NAMES
            assert {each["state"] for each in replicas["replicas"]} == {"serving"}
            assert sum(each["clients"] for each in replicas["replicas"]) == len(devices)


async def test_a_session_is_ended_from_the_other_gateway(gateways: Pair) -> None:
    one, two = gateways
    async with clients(one, two) as devices, api_of(one) as first, api_of(two) as second:
        for api, name in ((first, "device-1-0"), (second, "device-0-0"), (second, "device-1-1")):
            (session,) = await sessions(api, client=name)
            path = f"/sessions/{session['id']}"
            assert (await api.delete(path)).status_code == 204
            assert await devices[name].until_closed() == []
            assert (await api.get(path)).status_code == 404
            assert (await api.delete(path)).status_code == 404
            assert await sessions(api, client=name) == []
            # Each gateway says why the connection has ended, and where.
            for asked in (first, second):
                ending = (await get(asked, "/endings", client=name))["endings"][0]
                assert (ending["reason"], ending["replica"]) == (
                    "disconnected_by_operator",
                    session["replica"],
                )


async def test_a_session_that_cannot_be_is_not_found(gateways: Pair) -> None:
    for gateway in gateways:
        async with api_of(gateway) as api:
            for path in ("nobody/000000000", "one/00000000g", "one/1", "a.b/000000000", "one-0/000000000"):
                for method in ("GET", "DELETE"):
                    answer = await api.request(method, f"/sessions/{path}")
                    assert answer.status_code == 404, answer.text


async def test_without_nats_a_gateway_shows_and_ends_its_own(nats_server: NatsServer) -> None:
    async with AsyncExitStack() as stack:
        one, two = stack.enter_context(pair(nats_server.url))
        devices = await stack.enter_async_context(clients(one, two))
        first, second = [await stack.enter_async_context(api_of(gateway)) for gateway in (one, two)]
        nats_server.kill()
        for number, (api, names) in enumerate(((first, NAMES[:1]), (second, NAMES[1:]))):
            own = sorted(name for name in devices if name.startswith(f"device-{number}-"))

            async def shown(api: httpx.AsyncClient = api) -> tuple[bool, list[str]]:
                found = await get(api, "/replicas")
                return found["complete"], [each["replica"] for each in found["replicas"]]

            await until(shown, (False, names))
            page = await get(api, "/sessions")
            assert (page["complete"], page["next"]) == (False, None)
            assert sorted(each["clientId"] for each in page["sessions"]) == own
            session = page["sessions"][0]
            assert (await api.delete(f"/sessions/{session['id']}")).status_code == 204
            assert await devices[session["clientId"]].until_closed() == []
            answer = await api.delete("/sessions/elsewhere/000000000")
            assert answer.status_code == 503
            assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_a_gateway_that_drains_and_one_that_is_killed(nats_server: NatsServer) -> None:
    operator = await nats.connect(nats_server.url)
    async with AsyncExitStack() as stack:
        one, two = stack.enter_context(pair(nats_server.url))
        devices = await stack.enter_async_context(clients(one, two))
        api = await stack.enter_async_context(api_of(two))
        assert len(await sessions(api)) == len(devices)
        await operator.request("kaa.v1.replica.one.gateway.Drain", b"{}", timeout=TIMEOUT_S)

        async def draining() -> list[str]:
            found = (await get(api, "/replicas"))["replicas"]
            return [each["replica"] for each in found if each["state"] == "draining"]

        await until(draining, ["one"])
        one.kill()

        async def names() -> list[str]:
            return sorted({each["replica"] for each in (await get(api, "/sessions"))["sessions"]})

        await until(names, NAMES[1:])

        async def complete() -> bool:
            return bool((await get(api, "/sessions"))["complete"])

        await until(complete, True)
    await operator.close()


async def test_hostile_answers_over_nats_are_left_out(gateways: Pair, shared_nats: NatsServer) -> None:
    """Somebody in NATS pretends to be replicas, and answers what no replica would."""
    one, two = gateways
    status = {
        "version": "1",
        "connections": 0,
        "clients": 0,
        "sessions": 0,
        "endpoints": 0,
        "draining": False,
    }
    answers = [b"", b"{", b"[]", b'"x"', json.dumps({**status, "replica": "a.b/../*"}).encode()]
    answers.append(json.dumps({**status, "replica": "fake"}).encode())
    liar = await nats.connect(shared_nats.url)

    async def lie(message: Msg) -> None:
        for answer in answers:
            await liar.publish(message.reply, answer)

    async def garbage(message: Msg) -> None:
        await message.respond(b'{"replica": 1, "sessions": [[]]}')

    await liar.subscribe("kaa.v1.service.kpc.gateway.GetStatus", cb=lie)
    await liar.subscribe("kaa.v1.replica.fake.gateway.>", cb=garbage)
    await liar.flush()
    async with clients(one) as devices:
        for gateway in (one, two):
            async with api_of(gateway) as api:

                async def names(api: httpx.AsyncClient = api) -> list[str]:
                    found = await get(api, "/replicas")
                    return [each["replica"] for each in found["replicas"]]

                # What was found a moment ago may still be shown.
                await until(names, ["fake", *NAMES])
                page = await get(api, "/sessions")
                assert page["complete"] is False
                assert sorted(each["clientId"] for each in page["sessions"]) == sorted(devices)
                assert (await get(api, "/endings"))["complete"] is False
                assert (await api.get("/sessions/fake/000000000")).status_code == 503
    await liar.close()


async def test_long_descriptions_come_in_pages_that_nats_takes() -> None:
    filters = [f"kp1/app_v1/dcx/t{number}/{'x' * 900}" for number in range(20)]
    count = 40
    with (
        NatsServer(config="max_payload: 65536") as server,
        GatewayProcess(server.url, named("one")) as one,
        GatewayProcess(server.url, named("two")) as two,
    ):
        async with AsyncExitStack() as stack, api_of(one) as api:
            for number in range(count):
                device = await stack.enter_async_context(mqtt_client(two.mqtt_port, f"device-{number}"))
                for each in filters:
                    await device.subscribe(each, qos=0)
            found = await sessions(api)
            assert len({each["id"] for each in found}) == len(found) == count
            assert all(len(each["topics"]) == len(filters) for each in found)
            assert max(len(topic) for each in found for topic in each["topics"]) <= 257
