"""What NATS forbids, or does slowly: permissions, credentials, outages. Devices are told, memory keeps its bound."""

import asyncio

import httpx
import pytest
from kaa_bench.mqtt_packets import Puback, Publish

from tests.support.cluster import Cluster
from tests.support.coap import CoapClient, option
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.load import Counter, Device
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer
from tests.support.proxy import FaultProxy

SERVICE_UNAVAILABLE = 0xA3
"""5.03."""
MAX_AGE = 14
MiB = 1024 * 1024
USERS = """
authorization {{
  users = [
    {{user: gateway, password: secret, permissions: {{publish: {{deny: ["{denied}"]}}}}}}
    {{user: cluster, password: secret}}
  ]
}}
"""


def url(server: NatsServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:secret@")


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_subject_that_nats_forbids_is_503_and_no_other_is(qos: int) -> None:
    with (
        NatsServer(config=USERS.format(denied="kaa.v1.service.dcx.>")) as server,
        GatewayProcess(url(server, "gateway")) as gateway,
    ):
        async with (
            Cluster(url(server, "cluster"), "dcx", "tsx") as cluster,
            mqtt_client(gateway.mqtt_port) as device,
            httpx.AsyncClient() as http,
        ):
            for number in range(1, 4):
                await device.send(
                    Publish(f"kp1/app_v1/dcx/thing/json/{number}", b"[1]", qos, number),
                    Publish("kp1/app_v1/tsx/thing/time", b"", 0),
                )
                error = await device.expect(Publish)
                assert error.topic == f"kp1/app_v1/dcx/thing/json/{number}/error"
                assert b'"statusCode":503' in error.payload
                if qos:
                    await device.expect(Puback)
            await cluster.next_requests(3)
            assert {request.subject.split(".")[3] for request in cluster.requests} == {"tsx"}
            answer = await http.post(f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/thing/json")
            assert answer.status_code == 503
        assert gateway.count("events", "refused", "nats_permission") == 4
        assert gateway.ready()


async def test_wrong_credentials_at_the_start_are_said_once_and_tried_until_they_are_right() -> None:
    wrong = USERS.format(denied="none").replace("secret", "other")
    with NatsServer(config=wrong) as server:
        gateway = GatewayProcess(url(server, "gateway"))
        try:
            gateway.launch()
            await until(lambda: "Authorization Violation" in gateway.log, "a line in the log")
            assert not gateway.ready()
            assert "secret" not in gateway.log
            server.reload(USERS.format(denied="none"))
            await until(gateway.ready, "readiness")
            # Once for the link, and once for the control connection.
            assert gateway.log.count("Authorization Violation") == 2
        finally:
            gateway.close()


async def test_what_coap_and_http_are_told_while_nats_is_away(nats_server: NatsServer) -> None:
    with FaultProxy(nats_server.port) as proxy, GatewayProcess(proxy.url) as gateway:
        proxy.refuse()
        proxy.cut()
        await until(lambda: not gateway.ready(), "the loss")
        async with CoapClient(gateway.coap_port) as coap, httpx.AsyncClient() as http:
            answer = await coap.post("kp1/app_v1/dcx/thing/json", b"[1]")
            assert (answer.code, option(answer, MAX_AGE)) == (SERVICE_UNAVAILABLE, b"\x01")
            response = await http.post(f"http://{HOST}:{gateway.http_port}/kp1/app_v1/dcx/thing/json")
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        proxy.refuse(on=False)
        await until(gateway.ready, "the gateway to recover")


async def test_memory_stays_under_its_bound_however_long_nats_is_away(nats_server: NatsServer) -> None:
    """Devices send as much as they can, twice: the second outage costs no more memory than the first."""
    bound = MiB
    changes = {"kaa": {"kpc": {"nats": {"max-pending-bytes": bound}}}}
    with FaultProxy(nats_server.port) as proxy, GatewayProcess(proxy.url, changes) as gateway:
        peaks: list[int] = []
        async with Counter(nats_server.url) as counter:
            # 8 x 200 x 4 KiB: 6 MiB of messages against a bound of 1 MiB.
            devices = [Device(gateway.mqtt_port, f"device-{n}", window=200, size=4096) for n in range(8)]
            for device in devices:
                device.start()
            for _ in range(3):
                await asyncio.gather(*(device.acknowledges(200) for device in devices))
                proxy.refuse()
                proxy.cut()
                await until(lambda: gateway.count("nats_up") == 0, "the loss")
                # Readers that were paused before the loss stay so from half of the bound on.
                await until(lambda: gateway.count("nats_backlog_bytes") > bound // 2, "the readers to pause")
                assert gateway.count("nats_backlog_bytes") < bound + 256 * 1024
                refused = proxy.refused
                await until(lambda refused=refused: proxy.refused > refused + 2, "the outage to last")  # type: ignore[misc]
                assert gateway.count("nats_backlog_bytes") < bound + 256 * 1024
                peaks.append(gateway.rss)
                proxy.refuse(on=False)
                await until(gateway.ready, "the gateway to recover")
            await asyncio.gather(*(device.finish() for device in devices))
            await counter.settle()
            for device in devices:
                assert counter.missing(device) == set()
                assert not device.told
        print(f"\nresident memory in each outage: {[f'{peak / MiB:.1f} MiB' for peak in peaks]}")
        assert peaks[2] - peaks[0] < 8 * MiB
        assert gateway.count("nats_backlog_bytes") == 0


async def test_a_slow_server_slows_the_devices_down_and_costs_nothing(nats_server: NatsServer) -> None:
    changes = {"kaa": {"kpc": {"nats": {"max-pending-bytes": 256 * 1024}}}}
    with FaultProxy(nats_server.port) as proxy, GatewayProcess(proxy.url, changes) as gateway:
        async with Counter(nats_server.url) as counter:
            devices = [Device(gateway.mqtt_port, f"device-{n}", window=100, size=4096) for n in range(4)]
            proxy.delay("up", 0.005)
            for device in devices:
                device.start()
            await until(lambda: gateway.count("events", "paused", "nats_backlog") > 1, "the readers to pause")
            await asyncio.gather(*(device.acknowledges(200) for device in devices))
            assert gateway.count("nats_backlog_bytes") < 2 * 256 * 1024
            proxy.delay("up", 0)
            await asyncio.gather(*(device.finish() for device in devices))
            await counter.settle()
            for device in devices:
                assert counter.missing(device) == set()
                assert counter.in_order(device)
        assert gateway.count("nats_connects") == 1


async def test_a_gateway_that_reads_nats_too_slowly_is_cut_off_and_comes_back() -> None:
    """nats-server ends the connection of a slow consumer; nothing that devices have sent is lost by that."""
    config = 'write_deadline: "200ms"\nmax_pending: 2097152'
    with (
        NatsServer(config=config) as server,
        FaultProxy(server.port) as proxy,
        GatewayProcess(proxy.url) as gateway,
    ):
        async with Counter(server.url) as counter, Cluster(server.url) as cluster:
            device = Device(gateway.mqtt_port, "device")
            device.start()
            await device.acknowledges(100)
            proxy.pause("down")
            # More than the sockets on the way to the gateway hold.
            for _ in range(30):
                await cluster.push("nobody", bytes(MiB - 4096))
            await until(lambda: "Slow Consumer" in server.log, "the server to give up")
            proxy.resume()
            await until(lambda: gateway.count("nats_connects") >= 2, "another connection")
            await device.acknowledges(200)
            await device.finish()
            await counter.settle()
            assert counter.missing(device) == set()
        assert gateway.ready()
