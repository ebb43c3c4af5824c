"""An extension whose clock is wrong: devices' requests fail, and both sides say why."""

import httpx
import pytest
from kaa_bench.mqtt_packets import Publish
from kaa_ext import Extension, Request
from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import decode_client_data, encode_extension_data
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from tests.support.esp import GatewayDouble, until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer

HOUR = 3_600_000
SAID = "the timestamp of a message is wrong"
QUICK = {"kaa": {"kpc": {"transports": {"http": {"response-timeout": 1}}}}}


async def answering(url: str, offset: int, timeout: int) -> Client:
    """Connect an extension `dcx` whose clock is off by `offset` milliseconds and whose answers expire."""
    nats = Client()
    await nats.connect(url)

    async def answer(message: Msg) -> None:
        data = decode_client_data(message.data)
        datum = encode_extension_data(
            data.correlation_id, now_ms() + offset, timeout, data.app_version_name, "dcx", data.endpoint_id,
            data.resource_path, data.request_id, b"answer", 200,
        )  # fmt: skip
        await nats.publish(message.reply, datum)

    await nats.subscribe(subjects.service("dcx", "esp", subjects.CLIENT_DATA), cb=answer)
    await nats.flush()
    return nats


async def test_answers_of_an_extension_whose_clock_is_behind(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url, QUICK) as gateway:
        nats = await answering(nats_server.url, -HOUR, 5000)
        async with httpx.AsyncClient() as http:
            for _ in range(3):
                response = await http.post(f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/thing/json")
                assert response.status_code == 504
        async with mqtt_client(gateway.mqtt_port) as device:
            await device.send(Publish("kp1/app_v1/dcx/thing/json/1", b"1", 0))
            await until(lambda: gateway.count("clock_skew", "dcx") == 4, "the count")
        assert gateway.count("events", "dropped", "expired") == 4
        assert gateway.log.count(SAID) == 1
        await nats.close()


async def test_answers_of_an_extension_whose_clock_is_ahead_are_delivered(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url, QUICK) as gateway:
        nats = await answering(nats_server.url, HOUR, 5000)
        async with httpx.AsyncClient() as http:
            response = await http.post(f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/thing/json")
            assert (response.status_code, response.content) == (200, b"answer")
        assert gateway.count("clock_skew", "dcx") == 1
        assert gateway.log.count(SAID) == 1
        await nats.close()


async def test_clocks_that_agree_are_not_talked_of(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url, QUICK) as gateway:
        nats = await answering(nats_server.url, 0, 5000)
        async with httpx.AsyncClient() as http:
            response = await http.post(f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/thing/json")
            assert (response.status_code, response.content) == (200, b"answer")
        assert gateway.count("clock_skew", "dcx") == 0
        assert SAID not in gateway.log
        await nats.close()


@pytest.mark.parametrize(("offset", "answers"), [(HOUR, 0), (-HOUR, 3)])
async def test_requests_to_an_extension_with_another_clock(
    nats_server: NatsServer, offset: int, answers: int
) -> None:
    """Ahead, it finds each request expired; behind, it finds them written in the future, and answers."""
    extension = Extension("dcx", nats_urls=[nats_server.url])

    @extension.handler("/json")
    def echo(request: Request) -> bytes:
        return request.payload

    with capture_logs() as logs:
        async with extension, GatewayDouble(nats_server.url) as gateway:
            for number in range(3):
                await gateway.send("dcx", request_id=number, timestamp=now_ms() - offset, timeout=5000)
            await until(lambda: extension.stats["clock_skew"] == 3, "three requests")
            await gateway.wait_for(answers)
    assert len(gateway.answers) == answers
    assert extension.stats["expired"] == (3 if offset > 0 else 0)
    said = [each for each in logs if each.get("reason") == "clock_skew"]
    assert len(said) == 1
    assert abs(abs(said[0]["seconds"]) - 3600) < 60
