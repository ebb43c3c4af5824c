"""Durable mode: what a device has been told is stored, is stored, whatever dies; what is not, it is never told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import nats
import pytest
from kaa_bench.mqtt_packets import Publish
from kaa_bench.peers.kpudp_client import KpudpClient
from kaa_ext import Extension, Request
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from tests.support.cluster import Cluster
from tests.support.coap import CoapClient
from tests.support.esp import until
from tests.support.gateway import GatewayProcess, merged
from tests.support.load import Counter, Device, Store
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer
from tests.support.proxy import FaultProxy

URI_QUERY = 15
CHANGED = 0x44
"""2.04."""
STREAM = "kaa-dcx"
SUBJECT = "kaa.v1.service.dcx.esp.ClientData"
DURABLE: dict[str, Any] = {
    "kaa": {
        "extension-instances": {"dcx": {"endpoint-aware": True, "durable": True}},
        "kpc": {"durable": {"ack-timeout": 1}, "nats": {"ping-timeout": 1}},
    }
}


def settings(**durable: Any) -> dict[str, Any]:
    """The configuration with settings of kaa.kpc.durable, dashes for underscores."""
    keys = {name.replace("_", "-"): value for name, value in durable.items()}
    return {
        "kaa": {
            "extension-instances": DURABLE["kaa"]["extension-instances"],
            "kpc": {"durable": {"ack-timeout": 1, **keys}},
        }
    }


@pytest.fixture
def jetstream() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as server:
        yield server


@asynccontextmanager
async def management(server: NatsServer) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(server.url, allow_reconnect=False)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def test_nothing_acknowledged_is_lost_when_the_nats_server_is_killed(jetstream: NatsServer) -> None:
    """The same fault that takes messages along without durable mode, see test_nats_faults.py."""
    with GatewayProcess(jetstream.url, DURABLE) as gateway:
        store = Store(jetstream.url)
        async with store.extension:
            devices = [Device(gateway.mqtt_port, f"device-{number}", window=200) for number in range(3)]
            for device in devices:
                device.start()
            for _ in range(3):
                store.open.clear()
                await asyncio.gather(*(device.acknowledges(500) for device in devices))
                jetstream.kill()
                await until(lambda: gateway.count("nats_up") == 0, "the loss")
                jetstream.start()
                await until(gateway.ready, "the gateway to recover")
                store.open.set()
            await asyncio.gather(*(device.finish() for device in devices))
            for device in devices:
                assert len(device.acknowledged) == device.published
                assert not device.told
                await store.has_all(device)
            assert gateway.count("durable_backlog_bytes", "dcx") == 0
        assert "Traceback" not in gateway.log


async def test_lost_connections_leave_no_duplicate_in_the_stream(jetstream: NatsServer) -> None:
    with FaultProxy(jetstream.port) as proxy, GatewayProcess(proxy.url, DURABLE) as gateway:
        devices = [Device(gateway.mqtt_port, f"device-{number}") for number in range(3)]
        for device in devices:
            device.start()
        for number in range(6):
            await asyncio.gather(*(device.acknowledges(200) for device in devices))
            proxy.cut(reset=bool(number % 2))
        await asyncio.gather(*(device.finish() for device in devices))
        async with management(jetstream) as context:
            state = (await context.stream_info(STREAM)).state
        assert state.messages == sum(device.published for device in devices)
        assert gateway.count("durable_stored", "dcx") == state.messages
        store = Store(jetstream.url)
        async with store.extension:
            for device in devices:
                await store.has_all(device)
                assert sorted(store.handled[device.token]) == list(range(1, device.published + 1))


async def test_core_extensions_see_and_answer_what_is_stored(jetstream: NatsServer) -> None:
    with GatewayProcess(jetstream.url, DURABLE) as gateway:
        async with Cluster(jetstream.url, "dcx") as cluster, mqtt_client(gateway.mqtt_port) as device:
            await device.send(Publish("kp1/app_v1/dcx/thing/json/7", b"[1]", 1, 10))
            request = await cluster.request()
            assert request.fields["requestId"] == 7
            await cluster.answer(request, b"yes")
            packets = [await device.receive(), await device.receive()]
            assert {type(packet).__name__ for packet in packets} == {"Puback", "Publish"}
            answer = next(packet for packet in packets if isinstance(packet, Publish))
            assert (answer.topic, answer.payload) == ("kp1/app_v1/dcx/thing/json/7/status", b"yes")
        assert gateway.count("durable_stored", "dcx") == 1


@pytest.mark.parametrize("query", ["?answer=no", "?a=b&answer=no"])
async def test_requests_that_want_no_answer_are_acknowledged_when_stored(
    jetstream: NatsServer, query: str
) -> None:
    """No extension is running: an answer of it would not come."""
    name, _, value = query.rpartition("=")
    parameters = [(URI_QUERY, part.encode()) for part in f"{name}={value}".removeprefix("?").split("&")]
    with GatewayProcess(jetstream.url, DURABLE) as gateway:
        path = "kp1/app_v1/dcx/thing/json"
        async with (
            httpx.AsyncClient() as http,
            CoapClient(gateway.coap_port) as coap,
            KpudpClient(gateway.udp_port) as udp,
        ):
            answer = await http.post(f"http://{HOST}:{gateway.http_port}/{path}/5{query}", content=b"1")
            assert (answer.status_code, answer.content) == (200, b"")
            response = await coap.post(path, b"2", *parameters)
            assert (response.code, response.payload) == (CHANGED, b"")
            await udp.confirmed(path, b"3")
        assert gateway.count("durable_stored", "dcx") == 3
        assert sum(gateway.count("requests_pending", name) for name in ("http", "coap", "udp")) == 0
        requests: list[Request] = []
        extension = Extension("dcx", nats_urls=[jetstream.url], durable=True)

        @extension.handler("*")
        def take(request: Request) -> None:
            requests.append(request)

        async with extension:
            await until(lambda: len(requests) == 3, "what is stored")
        assert [request.payload for request in requests] == [b"1", b"2", b"3"]
        assert {(request.request_id, request.deadline) for request in requests} == {(None, None)}


async def test_requests_that_want_no_answer_without_durable_mode(jetstream: NatsServer) -> None:
    with GatewayProcess(jetstream.url) as gateway:
        url = f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/thing/json?answer=no"
        async with httpx.AsyncClient() as http:
            assert (await http.post(url)).status_code == 503
            async with Cluster(jetstream.url, "dcx") as cluster:
                assert (await http.post(url, content=b"1")).status_code == 200
                assert (await cluster.request()).fields["requestId"] is None


async def test_requests_of_a_durable_extension_are_answered_by_it_within_their_deadline(
    jetstream: NatsServer,
) -> None:
    changes = merged(DURABLE, {"kaa": {"kpc": {"transports": {"http": {"response-timeout": 0.5}}}}})
    with GatewayProcess(jetstream.url, changes) as gateway:
        url = f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/thing/json"
        extension = Extension("dcx", nats_urls=[jetstream.url], durable=True)

        @extension.handler("*")
        def take(request: Request) -> bytes:
            return request.payload.upper()

        async with httpx.AsyncClient() as http:
            late = await http.post(url, content=b"nobody is there")
            assert late.status_code == 504
            async with extension:
                await until(lambda: extension.stats["expired"] == 1, "the late one to be dropped")
                while (answer := await http.post(url, content=b"yes")).status_code == 504:
                    pass  # half a second is not much on a busy machine
                assert (answer.status_code, answer.content) == (200, b"YES")


async def test_a_handler_that_fails_has_its_message_again(jetstream: NatsServer) -> None:
    with GatewayProcess(jetstream.url, DURABLE) as gateway:
        tries: list[bytes] = []
        extension = Extension("dcx", nats_urls=[jetstream.url], durable=True)

        @extension.handler("*")
        async def take(request: Request) -> None:
            tries.append(request.payload)
            if request.payload == b"bad" and tries.count(b"bad") < 3:
                raise OSError("the database is away")

        async with extension, mqtt_client(gateway.mqtt_port) as device:
            for packet_id, payload in enumerate((b"bad", b"good"), start=1):
                await device.send(Publish("kp1/app_v1/dcx/thing/json", payload, 1, packet_id))
            await until(lambda: tries.count(b"bad") == 3 and b"good" in tries, "three tries")
            async with management(jetstream) as context:
                for _ in range(1000):
                    if not (await context.stream_info(STREAM)).state.messages:
                        break
                    await asyncio.sleep(0.01)
                else:
                    raise AssertionError("handled messages are still in the stream")
        assert extension.stats["retried"] == 2


async def test_a_full_stream_is_never_success(jetstream: NatsServer) -> None:
    changes = settings(max_bytes=64 * 1024, max_pending_bytes=64 * 1024)
    with GatewayProcess(jetstream.url, changes) as gateway:
        device = Device(gateway.mqtt_port, "device", window=300, size=1000)
        device.start()
        await until(lambda: gateway.count("durable_up", "dcx") == 0, "the stream to be full")
        stored = int(gateway.count("durable_stored", "dcx"))
        assert 0 < stored < 64
        await until(lambda: len(device.acknowledged) == stored, "what is stored to be acknowledged")
        async with httpx.AsyncClient() as http:
            url = f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/device/json"
            for query in ("", "?answer=no"):
                answer = await http.post(url + query, content=b"1")
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            other = await http.post(url.replace("/dcx/", "/tsx/"), content=b"1")
            assert other.json()["reasonPhrase"] == "No replica of the extension is running"
        await until(lambda: gateway.count("events", "paused", "nats_backlog") > 0, "the device to be paused")
        assert gateway.count("durable_backlog_bytes", "dcx") < 200 * 1024
        assert len(device.acknowledged) == stored

        store = Store(jetstream.url)
        async with store.extension:
            await device.acknowledges(500)
            await device.finish()
            await store.has_all(device)
        assert not device.told
        assert len(device.acknowledged) == device.published


async def test_a_removed_stream_is_made_again(jetstream: NatsServer) -> None:
    """With a core extension listening, nobody says that the stream is gone: it is silence that tells."""
    with GatewayProcess(jetstream.url, DURABLE) as gateway:
        device = Device(gateway.mqtt_port, "device")
        device.start()
        await device.acknowledges(100)
        async with management(jetstream) as context, Counter(jetstream.url):
            await context.delete_stream(STREAM)
            await until(lambda: gateway.count("durable_up", "dcx") == 0, "the silence")
            before = len(device.acknowledged)
            await device.acknowledges(100)
            await device.finish()
            state = (await context.stream_info(STREAM)).state
            assert state.messages >= device.published - before
        assert "stream made" in gateway.log


@pytest.mark.parametrize(
    ("existing", "said"),
    [
        (StreamConfig(name=STREAM, subjects=[SUBJECT]), "retention is 'limits' instead of 'workqueue'"),
        (
            StreamConfig(name="other", subjects=["kaa.v1.service.>"]),
            "subjects overlap with an existing stream",
        ),
    ],
)
async def test_a_wrong_stream_is_a_clear_error(
    jetstream: NatsServer, existing: StreamConfig, said: str
) -> None:
    async with management(jetstream) as context:
        await context.add_stream(existing)
    gateway = GatewayProcess(jetstream.url, DURABLE)
    try:
        gateway.launch()
        await until(lambda: not gateway.running, "the gateway to end")
        assert said in gateway.log
        assert STREAM in gateway.log
        assert "Traceback" not in gateway.log
    finally:
        gateway.close()


async def test_without_jetstream_the_gateway_waits_and_says_so(nats_server: NatsServer) -> None:
    gateway = GatewayProcess(nats_server.url, DURABLE)
    try:
        gateway.launch()
        await until(lambda: "JetStream is not enabled" in gateway.log, "a line in the log")
        assert not gateway.ready()
        assert gateway.stop() == 0
    finally:
        gateway.close()
