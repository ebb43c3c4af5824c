"""Extensions on a real nats-server: sharing load, draining, losing NATS and getting it back."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from kaa_ext import (
    Extension,
    ExtensionError,
    NotDelivered,
    PayloadTooLarge,
    Request,
)
from kaa_ext.messages import dstp
from kaa_ext.sdk import connection
from kaa_ext.sdk import extension as extension_module
from kaa_ext.services import dcx, echo, tsx
from kaa_gateway.bus import subjects
from kaa_gateway.bus.flushing import flush
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from tests.support.esp import GatewayDouble, until
from tests.support.nats import NatsServer

Logged = Callable[[str], bool]


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Says whether an event was logged during this test."""
    with capture_logs() as lines:
        yield lambda event: any(event in line["event"] for line in lines)


def echo_extension(url: str, name: str = "echo", **settings: Any) -> Extension:
    extension = Extension(name, nats_urls=[url], **settings)
    echo.register(extension)
    return extension


async def test_statuses_and_payloads_reach_the_gateway(nats_server: NatsServer) -> None:
    async with echo_extension(nats_server.url), GatewayDouble(nats_server.url) as gateway:
        for code in (200, 204, 302, 404, 500, 503):
            answer = await gateway.ask("echo", f"/status/{code}", b"\x00payload", request_id=code)
            assert (answer.status_code, answer.request_id, answer.payload) == (code, code, b"\x00payload")
        refused = await gateway.ask("echo", "/status/999")
        assert (refused.status_code, refused.payload) == (400, None)
        assert (await gateway.ask("echo", "", b"\xff")).payload == b"\xff"


async def test_no_request_id_no_answer(nats_server: NatsServer) -> None:
    async with echo_extension(nats_server.url) as extension, GatewayDouble(nats_server.url) as gateway:
        await gateway.send("echo", payload=b"silent", request_id=None)
        await gateway.send("echo", payload=b"asked", request_id=0)
        (answer,) = await gateway.wait_for(1)
        assert (answer.payload, answer.request_id) == (b"asked", 0)
        assert extension.stats["unanswered"] == 1


async def test_two_replicas_share_the_load_without_duplicates(nats_server: NatsServer) -> None:
    count = 500
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(echo_extension(nats_server.url)) for _ in range(2)]
        gateway = await stack.enter_async_context(GatewayDouble(nats_server.url))
        for number in range(count):
            await gateway.send("echo", payload=b"%d" % number, request_id=number)
        answers = await gateway.wait_for(count)
        await asyncio.gather(*(replica.stop() for replica in replicas))
        await flush(gateway.nats)
    assert Counter(answer.request_id for _, answer in gateway.answers) == Counter(range(count))
    assert all(answer.payload == b"%d" % (answer.request_id or 0) for answer in answers)
    handled = [replica.stats["requests"] for replica in replicas]
    assert sum(handled) == count
    assert all(handled), "one replica got everything"


async def test_affinity_leads_to_the_replica_that_answered(nats_server: NatsServer) -> None:
    async with AsyncExitStack() as stack:
        replicas = {
            name: await stack.enter_async_context(
                echo_extension(nats_server.url, replica_id=name, affinity=True)
            )
            for name in ("one", "two")
        }
        gateway = await stack.enter_async_context(GatewayDouble(nats_server.url))
        await gateway.ask("echo")
        affinity, _ = gateway.answers[0]
        for number in range(20):
            await gateway.send("echo", request_id=number, subject=affinity)
        await gateway.wait_for(21)
    handled = {
        subjects.replica(name, "esp", subjects.CLIENT_DATA): each.stats["requests"]
        for name, each in replicas.items()
    }
    assert handled.pop(affinity) == 21
    assert list(handled.values()) == [0]


async def test_replicas_of_gateways_all_see_a_push(nats_server: NatsServer) -> None:
    async with (
        GatewayDouble(nats_server.url, replica_id="a") as one,
        GatewayDouble(nats_server.url, replica_id="b") as other,
        echo_extension(nats_server.url) as extension,
    ):
        await extension.push("endpoint-7", "/config/json", b"{}", app_version_name="v2")
        for gateway in (one, other):
            (pushed,) = await gateway.wait_for(1)
            assert (pushed.endpoint_id, pushed.resource_path, pushed.request_id) == (
                "endpoint-7",
                "/config/json",
                None,
            )
            assert (pushed.extension_instance_name, pushed.app_version_name) == ("echo", "v2")


async def test_drain_answers_every_request_that_was_accepted(nats_server: NatsServer) -> None:
    """A replica stops under load: together with the one that stays, each request is answered exactly once."""
    count = 400
    staying, leaving = (Extension("slow", nats_urls=[nats_server.url], concurrency=8) for _ in range(2))
    for extension in (staying, leaving):

        @extension.handler("/json")
        async def take_time(request: Request) -> bytes:
            await asyncio.sleep(0.005)
            return request.payload

    async with staying, GatewayDouble(nats_server.url) as gateway:
        await leaving.start()
        for number in range(count):
            await gateway.send("slow", payload=b"%d" % number, request_id=number)
            if number == count // 2:
                await until(lambda: leaving.stats["requests"] > 0, "load on both")
                stopping = asyncio.create_task(leaving.stop())
            if number % 20 == 0:
                await asyncio.sleep(0.005)
        await stopping
        await gateway.wait_for(count)
    assert Counter(answer.request_id for _, answer in gateway.answers) == Counter(range(count))
    assert leaving.stats["responses"] == leaving.stats["requests"] > 0
    assert leaving.stats["abandoned"] == 0


async def test_drain_ends_although_a_handler_does_not(nats_server: NatsServer) -> None:
    extension = Extension("stuck", nats_urls=[nats_server.url], concurrency=2, drain_timeout_s=0.2)

    @extension.handler("/json")
    async def never(request: Request) -> None:
        await asyncio.Event().wait()

    async with GatewayDouble(nats_server.url) as gateway:
        await extension.start()
        for number in range(5):
            await gateway.send("stuck", request_id=number)
        await until(lambda: extension.stats["requests"] == 2, "both slots to be taken")
        await until(lambda: extension.waiting == 3, "the others to arrive")
        await extension.stop()
    assert extension.stats["abandoned"] == 5


async def test_killed_nats_comes_back(nats_server: NatsServer) -> None:
    async with echo_extension(nats_server.url) as extension, GatewayDouble(nats_server.url) as gateway:
        assert (await gateway.ask("echo", payload=b"before")).payload == b"before"
        nats_server.kill()
        await until(lambda: gateway.nats.is_reconnecting, "the gateway to notice")
        await extension.push("endpoint", "/while/away", b"kept")
        nats_server.start()
        await until(lambda: gateway.nats.is_connected, "the gateway to be back")
        await until_answering(gateway)
        assert extension.stats["undelivered"] == 0


async def until_answering(gateway: GatewayDouble) -> None:
    """Ask until an answer comes: what is sent before the extension is back finds no subscriber."""
    count = len(gateway.answers)

    async def ask_again() -> None:
        while True:
            await gateway.send("echo", payload=b"after")
            await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask_again())
    try:
        await until(lambda: any(a.payload == b"after" for _, a in gateway.answers[count:]), "an answer")
    finally:
        asking.cancel()


async def test_a_limit_that_falls_is_the_limit_from_then_on(nats_server: NatsServer) -> None:
    """A message that was larger does not cost the connection."""
    async with (
        echo_extension(nats_server.url) as extension,
        GatewayDouble(nats_server.url) as gateway,
    ):
        nats_server.reload("max_payload: 1000")
        await until(lambda: "Reloaded server configuration" in nats_server.log, "the new configuration")
        with suppress(PayloadTooLarge):
            await extension.push("endpoint", "/json", bytes(2_000))
        await until_answering(gateway)
        with pytest.raises(PayloadTooLarge):
            await extension.push("endpoint", "/json", bytes(2_000))


async def test_jetstream_comes_back_after_nats_has_closed_its_connection_for_good(
    nats_server: NatsServer, logged: Logged
) -> None:
    """nats-py does not reconnect after an error that the server gives as the reason to hang up."""
    async with echo_extension(nats_server.url) as extension:
        client = extension.jetstream()._nc
        nats_server.reload("max_payload: 1000")
        await until(lambda: "Reloaded server configuration" in nats_server.log, "the new configuration")
        client._max_payload = 1 << 20
        await client.publish("too.large", bytes(2_000))
        await until(lambda: logged("opening a new one"), "the connection to be closed")
        await until(lambda: is_available(extension), "JetStream")


def is_available(extension: Extension) -> bool:
    try:
        extension.jetstream()
    except NotDelivered:
        return False
    return True


async def test_waits_for_nats_to_start(nats_server: NatsServer, logged: Logged) -> None:
    nats_server.stop()
    extension = echo_extension(nats_server.url)
    starting = asyncio.create_task(extension.start())
    await until(lambda: logged("cannot connect to NATS"), "a log line")
    assert not starting.done()
    nats_server.start()
    await starting
    async with GatewayDouble(nats_server.url) as gateway:
        assert (await gateway.ask("echo", payload=b"1")).payload == b"1"
    await extension.stop()


async def test_start_can_be_given_up_while_nats_is_away(nats_server: NatsServer) -> None:
    nats_server.stop()
    extension = echo_extension(nats_server.url)
    starting = asyncio.create_task(extension.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(NotDelivered):
        await extension.push("endpoint", "/json", b"")


async def test_stop_ends_while_nats_is_away(nats_server: NatsServer, logged: Logged) -> None:
    extension = echo_extension(nats_server.url)
    await extension.start()
    nats_server.kill()
    await until(lambda: logged("NATS connection lost"), "the loss to be noticed")
    await extension.stop()


async def test_more_than_we_keep_while_nats_is_away_is_refused(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OUTGOING_BYTES", 10_000)
    async with echo_extension(nats_server.url) as extension:
        nats_server.kill()
        with pytest.raises(NotDelivered):
            await push_until_refused(extension)


async def push_until_refused(extension: Extension) -> None:
    for _ in range(1_000):
        await extension.push("endpoint", "/json", bytes(1_000))
        await asyncio.sleep(0.005)


async def test_overrun_is_counted_and_does_not_end_the_service(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension_module, "PENDING_MESSAGES", 10)
    extension = Extension("slow", nats_urls=[nats_server.url], concurrency=1)
    release = asyncio.Event()

    @extension.handler("/json")
    async def wait(request: Request) -> None:
        await release.wait()

    async with extension, GatewayDouble(nats_server.url) as gateway:
        for number in range(100):
            await gateway.send("slow", request_id=number)
        await until(lambda: extension.stats["overrun"] > 50, "requests to be dropped")
        release.set()
        await until(
            lambda: extension.stats["overrun"] + extension.stats["responses"] == 100,
            "each to be answered or counted",
        )
        await gateway.wait_for(extension.stats["responses"])
        assert (await gateway.ask("slow", request_id=1000)).request_id == 1000


async def test_message_larger_than_nats_takes(nats_server: NatsServer) -> None:
    extension = Extension("big", nats_urls=[nats_server.url])
    extension.handler("/json")(lambda request: bytes(2 * 1024 * 1024))
    async with extension, GatewayDouble(nats_server.url) as gateway:
        assert (await gateway.ask("big")).status_code == 500
        with pytest.raises(PayloadTooLarge):
            await extension.push("endpoint", "/json", bytes(2 * 1024 * 1024))


async def test_run_serves_until_sigterm(nats_server: NatsServer) -> None:
    extension = echo_extension(nats_server.url)
    running = asyncio.create_task(extension.run())
    async with GatewayDouble(nats_server.url) as gateway:
        await until_answering(gateway)
        signal.raise_signal(signal.SIGTERM)
        await running
    with pytest.raises(NotDelivered):
        await extension.push("endpoint", "/json", b"")


async def test_dcx_turns_a_batch_into_an_event(nats_server: NatsServer) -> None:
    extension = Extension("dcx", nats_urls=[nats_server.url], replica_id="dcx-1")
    dcx.register(extension)
    events: list[tuple[str, Any]] = []

    async def receive(message: Msg) -> None:
        events.append((message.reply, dstp.DATA_SAMPLES_EVENT.decode(message.data)))

    async with extension, GatewayDouble(nats_server.url) as gateway:
        await gateway.nats.subscribe(
            "kaa.v1.events.dcx.endpoint.data-collection.data-samples-received", cb=receive
        )
        answer = await gateway.ask("dcx", "/json", b'[{"t": 21.50}, 3]')
        assert (answer.status_code, answer.payload) == (200, b"")
        await gateway.send("dcx", "/json", b'{"one": 1}', request_id=None)
        assert (await gateway.ask("dcx", "/json", b"[]")).status_code == 200
        refused = await gateway.ask("dcx", "/json", b'[{"t": }]')
        assert (refused.status_code, refused.reason_phrase) == (400, "Invalid JSON at byte 7")
        assert (await gateway.ask("dcx", "/json/x", b"[1]")).status_code == 404
        await gateway.send("dcx", "/json", b"[1]", endpoint_id=None)
        assert (await gateway.wait_for(5))[4].status_code == 400
    assert [record["dataSamples"] for _, record in events] == [[b'{"t": 21.50}', b"3"], [b'{"one": 1}']]
    reply, record = events[0]
    assert reply == ""  # nobody must confirm
    assert (record["correlationId"], record["appVersionName"], record["endpointId"]) == (
        "correlation",
        "app-v1",
        "endpoint",
    )
    assert record["contentType"] == "application/json"


async def test_tsx_tells_the_time(nats_server: NatsServer) -> None:
    extension = Extension("tsx", nats_urls=[nats_server.url])
    tsx.register(extension)
    async with extension, GatewayDouble(nats_server.url) as gateway:
        for resource_path in ("", "/time"):
            answer = await gateway.ask("tsx", resource_path)
            assert set(json.loads(answer.payload or b"")) == {"timestamp"}
        answer = await gateway.ask("tsx", "", b'{"timezone": "Asia/Kathmandu"}')
        assert json.loads(answer.payload or b"")["offset"] == 20_700
        answer = await gateway.ask("tsx", "", b'{"timezone": "Nowhere"}')
        assert (answer.status_code, answer.reason_phrase) == (400, "Unknown time zone")


async def test_error_of_a_handler_reaches_the_device_and_the_service_lives(nats_server: NatsServer) -> None:
    extension = Extension("svc", nats_urls=[nats_server.url])

    @extension.handler("/{how}")
    async def fail(request: Request) -> bytes:
        match request.parameters["how"]:
            case "refuse":
                raise ExtensionError(422, "Not like this")
            case "break":
                raise KeyError("inside")
        return b"fine"

    async with extension, GatewayDouble(nats_server.url) as gateway:
        statuses = [
            (await gateway.ask("svc", path)).status_code for path in ("/refuse", "/break", "/a/b", "/ok")
        ]
    assert statuses == [422, 500, 404, 200]
    assert all("inside" not in (answer.reason_phrase or "") for _, answer in gateway.answers)
