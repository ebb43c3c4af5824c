"""The link against a real nats-server, whose bytes come one by one."""

from kaa_bench.mqtt_packets import Puback, Publish

from tests.support.cluster import Cluster
from tests.support.mqtt import mqtt_client
from tests.support.nats import NatsServer
from tests.support.proxy import FaultProxy
from tests.support.worker import EXTENSION, running_worker

TOPIC = "kp1/app_v1/dcx/token/json"


async def test_a_real_server_in_single_bytes_both_ways(nats_server: NatsServer) -> None:
    with FaultProxy(nats_server.port) as proxy:
        proxy.split("up")
        proxy.split("down")
        async with (
            running_worker(proxy.url) as worker,
            Cluster(nats_server.url, EXTENSION) as cluster,
            mqtt_client(worker.ports["mqtt"]) as device,
        ):
            for number in range(3):
                await device.send(Publish(f"{TOPIC}/{number}", b"question", 1, number + 1))
                (request,) = await cluster.next_requests(1, after=number)
                await cluster.answer(request, b"answer" * 50)
                packets = [await device.receive(), await device.receive()]
                assert Puback(number + 1) in packets
                assert [(each.topic, each.payload) for each in packets if isinstance(each, Publish)] == [
                    (f"{TOPIC}/{number}/status", b"answer" * 50)
                ]
            assert worker.link.connects == 1
