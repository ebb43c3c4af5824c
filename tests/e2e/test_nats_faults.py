"""NATS goes away and comes back under load: what was acknowledged arrived, counted.

What core NATS itself cannot promise is shown as well: a server that dies takes along what it held in memory.
"""

import asyncio

import httpx
import pytest
from kaa_bench.mqtt_packets import Publish

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.load import Counter, Device
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer
from tests.support.proxy import FaultProxy

PING_TIMEOUT_S = 0.5
FAST_GIVE_UP = {"kaa": {"kpc": {"nats": {"ping-timeout": PING_TIMEOUT_S}}}}


def report(title: str, counter: Counter, devices: list[Device]) -> None:
    """The counts, for `pytest -s`."""
    print(f"\n{title}:")
    for device in devices:
        print(
            f"  {device.token}: {device.published} published, {len(device.acknowledged)} acknowledged, "
            f"{len(set(counter.arrived.get(device.token, ())))} arrived, {counter.repeated(device)} of them again, "
            f"{len(device.told)} answered with 503, {len(counter.missing(device))} missing"
        )


@pytest.mark.parametrize("fault", ["reset", "close", "blackhole"])
async def test_nats_connection_lost_again_and_again(nats_server: NatsServer, fault: str) -> None:
    with FaultProxy(nats_server.port) as proxy, GatewayProcess(proxy.url, FAST_GIVE_UP) as gateway:
        devices = [Device(gateway.mqtt_port, f"device-{number}") for number in range(3)]
        async with Counter(nats_server.url) as counter:
            for device in devices:
                device.start()
            rounds = 3 if fault == "blackhole" else 6
            for number in range(rounds):
                await asyncio.gather(*(device.acknowledges(300) for device in devices))
                if fault == "blackhole":
                    # One way in turn: what was published arrives, and its PONG does not.
                    proxy.pause("up" if number % 2 else "down")
                    lost = gateway.count("nats_connects") + 1
                    await until(lambda: not gateway.ready(), "the silence to be noticed")
                    proxy.cut()
                    proxy.resume()
                    await until(lambda lost=lost: gateway.count("nats_connects") >= lost, "the reconnect")  # type: ignore[misc]
                else:
                    proxy.cut(reset=fault == "reset")
            await asyncio.gather(*(device.acknowledges(300) for device in devices))
            await asyncio.gather(*(device.finish() for device in devices))
            await counter.settle()
            report(f"NATS connection lost {rounds} times ({fault})", counter, devices)
            for device in devices:
                assert len(device.acknowledged) == device.published
                assert counter.missing(device) == set()
                assert not device.told
                assert counter.in_order(device)
        metrics = gateway.metrics()
        assert metrics["nats_connects",] >= rounds + 1
        assert metrics["nats_backlog_bytes",] == 0
        repeated = sum(counter.repeated(device) for device in devices)
        assert repeated <= metrics["nats_publications_resent",]


async def test_messages_wait_while_nats_refuses_and_http_is_told(nats_server: NatsServer) -> None:
    with FaultProxy(nats_server.port) as proxy, GatewayProcess(proxy.url) as gateway:
        device = Device(gateway.mqtt_port, "device", window=200)
        async with Counter(nats_server.url) as counter, httpx.AsyncClient() as http:
            device.start()
            await device.acknowledges(200)
            proxy.refuse()
            proxy.cut()
            await until(lambda: not gateway.ready(), "the loss")
            url = f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/device/json"
            answer = await http.post(url, content=b"1")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json()["statusCode"] == 503
            ready = await http.get(f"http://{HOST}:{gateway.admin_port}/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "DOWN")
            live = await http.get(f"http://{HOST}:{gateway.admin_port}/health/live")
            assert live.status_code == 200
            await until(lambda: device.published - len(device.acknowledged) == 200, "a full window")

            await until(lambda: proxy.refused >= 2, "the gateway to try again")
            proxy.refuse(on=False)
            await until(gateway.ready, "the gateway to recover")
            await device.finish()
            await counter.settle()
            assert counter.missing(device) == set()
            assert counter.in_order(device)


async def test_nats_server_killed_and_restarted(nats_server: NatsServer) -> None:
    """The extension reads slowly, so that the server that dies holds much that it has confirmed."""
    with FaultProxy(nats_server.port) as slow, GatewayProcess(nats_server.url) as gateway:
        device = Device(gateway.mqtt_port, "device", size=16 * 1024)
        async with Counter(slow.url) as counter:
            device.start()
            await device.acknowledges(100)
            slow.pause("down")
            # 40 MB: more than the sockets on the way to the extension hold.
            await device.acknowledges(2500)
            nats_server.kill()
            await until(lambda: gateway.count("nats_up") == 0, "the loss")
            await device.caught_up()
            confirmed_by_the_dead = set(device.acknowledged)
            slow.resume()

            nats_server.start()
            await until(gateway.ready, "the gateway to recover by itself")
            await until(lambda: counter.reconnected, "the extension to recover by itself")
            await counter.settle()
            await device.acknowledges(500)
            await device.finish()
            await counter.settle()

            lost = counter.missing(device)
            report("nats-server killed and restarted", counter, [device])
            print(
                f"  The dead server took {len(lost)} along: it had confirmed them, and held them in memory for an\n"
                f"  extension that read slowly. Core NATS stores nothing; durable mode is what will."
            )
            assert lost <= confirmed_by_the_dead, "acknowledged after the server's death, and lost"
            assert lost, "the test has not shown what it says"
            after = device.acknowledged - confirmed_by_the_dead - device.told
            assert len(after) >= 300
            assert after <= set(counter.arrived[device.token])
            assert counter.in_order(device)
        assert "Traceback" not in gateway.log


async def test_events_and_answers_come_through_a_restarted_server(
    gateway: GatewayProcess, nats_server: NatsServer
) -> None:
    """Both connections of the gateway recover: the link with its subscriptions, and the one for events."""
    nats_server.kill()
    await until(lambda: not gateway.ready(), "the loss")
    nats_server.start()
    await until(gateway.ready, "the gateway to recover")
    async with Cluster(nats_server.url, "dcx") as cluster, mqtt_client(gateway.mqtt_port) as device:
        await device.send(Publish("kp1/app_v1/dcx/roamer/json/1", b"[1]", 0))
        await cluster.answer(await cluster.request(), b"yes")
        answer = await device.expect(Publish)
        assert (answer.topic, answer.payload) == ("kp1/app_v1/dcx/roamer/json/1/status", b"yes")
        # That the endpoint left is told whether or not the event of its coming was in time for this observer.
        await device.abort()
        await cluster.connectivity("disconnected", "roamer")
    assert gateway.count("events_dropped") == 0


async def test_nats_away_at_the_start(nats_server: NatsServer) -> None:
    nats_server.stop()
    gateway = GatewayProcess(nats_server.url)
    try:
        gateway.launch()
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{gateway.admin_port}") as http:

            async def live() -> int:
                try:
                    return (await http.get("/health/live")).status_code
                except httpx.TransportError:
                    return 0

            while await live() != 200:
                assert gateway.running, gateway.log
                await asyncio.sleep(0.02)
            assert (await http.get("/health/ready")).status_code == 503
            await until(lambda: "cannot connect to NATS" in gateway.log, "a line in the log")
        for port in (gateway.mqtt_port, gateway.http_port):
            # Devices go elsewhere, or try again, instead of talking to a gateway that cannot forward.
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, port)
        nats_server.start()
        await until(gateway.ready, "readiness")
        assert gateway.log.count("cannot connect to NATS") == 1, "one line, not one for each attempt"
        device = Device(gateway.mqtt_port, "device", window=1)
        async with Counter(nats_server.url) as counter:
            device.start()
            await device.acknowledges(3)
            await device.finish()
            await counter.settle()
            assert counter.missing(device) == set()
    finally:
        gateway.close()


async def test_stops_while_nats_is_away(gateway: GatewayProcess, nats_server: NatsServer) -> None:
    """Within graceful-shutdown (5 s here), which `stop` gives it."""
    nats_server.kill()
    await until(lambda: not gateway.ready(), "the loss")
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log
