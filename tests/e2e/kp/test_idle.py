"""Endpoints that speak without a connection are present until they have been silent: over CoAP, time in our hands."""

from collections.abc import AsyncIterator

import pytest

from tests.support.cluster import Cluster
from tests.support.coap import CoapClient, RunningCoapServer, coap_server
from tests.support.esp import until
from tests.support.nats import NatsServer

IDLE_TIMEOUT = 80.0
LOOK_PERIOD = IDLE_TIMEOUT / 8
GET = 1
OBSERVE = 6
TOKENS = ("one", "two", "three")


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx", "cmx") as cluster:
        yield cluster


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[RunningCoapServer]:
    async with coap_server(shared_nats.url, idle_timeout=IDLE_TIMEOUT, watched_max=3) as server:
        yield server


class Device:
    """A device at one address, which speaks for some endpoints."""

    def __init__(self, server: RunningCoapServer, cluster: Cluster, client: CoapClient) -> None:
        self.server = server
        self.cluster = cluster
        self.client = client
        self.now = 0.0

    async def speak(self, token: str = "one", observe: bytes | None = None) -> None:
        """A request and its answer; `observe` is the value of that option."""
        count = len(self.cluster.requests)
        path = f"kp1/app_v1/dcx/{token}/json"
        if observe is None:
            self.client.send(self.client.request(path))
        else:
            self.client.send(self.client.request(path, b"", (OBSERVE, observe), method=GET, token=b"t"))
        (request,) = await self.cluster.next_requests(1, after=count)
        await self.cluster.answer(request)
        await self.client.receive()

    def wait(self, seconds: float) -> None:
        """Let time pass, second by second, for those who look for the idle."""
        for _ in range(round(seconds)):
            self.now += 1
            self.server.sessions.presence.look_for_idle(self.now)

    @property
    def present(self) -> set[str]:
        return self.server.presence.present


@pytest.fixture
async def device(server: RunningCoapServer, cluster: Cluster) -> AsyncIterator[Device]:
    async with CoapClient(server.port) as client:
        yield Device(server, cluster, client)


async def test_present_from_its_first_message_until_it_is_idle(device: Device) -> None:
    assert device.present == set()
    await device.speak()
    assert device.present == {"one"}
    device.wait(IDLE_TIMEOUT)
    assert device.present == {"one"}
    device.wait(2 * LOOK_PERIOD)
    assert device.present == set()


async def test_each_message_counts_though_its_route_is_known(device: Device) -> None:
    for _ in range(10):
        await device.speak()
        device.wait(IDLE_TIMEOUT - 1)
        assert device.present == {"one"}
    device.wait(2 * LOOK_PERIOD + 1)
    assert device.present == set()


async def test_it_comes_back_over_the_same_session(device: Device) -> None:
    for _ in range(3):
        await device.speak()
        assert device.present == {"one"}
        device.wait(IDLE_TIMEOUT + 2 * LOOK_PERIOD)
        assert device.present == set()
    assert device.server.tables["peers"] == 1


async def test_one_may_be_idle_while_the_other_is_not(device: Device) -> None:
    await device.speak("one")
    await device.speak("two")
    assert device.present == {"one", "two"}
    device.wait(IDLE_TIMEOUT - 1)
    await device.speak("two")
    device.wait(2 * LOOK_PERIOD + 1)
    assert device.present == {"two"}


async def test_the_next_due_goes_where_there_are_too_many(device: Device) -> None:
    for token in TOKENS:
        await device.speak(token)
    assert device.server.count("dropped", "idle_endpoints_full") == 0
    await device.speak("four")
    assert device.present == {"two", "three", "four"}
    assert device.server.count("dropped", "idle_endpoints_full") == 1
    await device.speak("one")
    assert device.present == {"three", "four", "one"}


async def test_the_end_of_the_worker_is_the_end_of_all(device: Device) -> None:
    await device.speak("one")
    await device.speak("two")
    device.server.sessions.presence.end()
    assert device.present == set()
    assert len(device.server.sessions.endpoints) == 2


async def test_an_observer_is_present_however_silent_and_for_a_while_after(device: Device) -> None:
    await device.speak(observe=b"")
    await until(lambda: device.server.tables["observers"] == 1, "the registration")
    device.wait(5 * IDLE_TIMEOUT)
    assert device.present == {"one"}
    await device.speak(observe=b"\x01")
    assert device.server.tables["observers"] == 0
    assert device.present == {"one"}
    device.wait(IDLE_TIMEOUT + 2 * LOOK_PERIOD)
    assert device.present == set()
