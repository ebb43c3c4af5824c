"""Workers that cannot ask each other: clients connect all the same, and of two sessions the newer one remains."""

import asyncio

from kaa_bench.mqtt_packets import Connack, Disconnect, Puback, Publish
from kaa_gateway.fleet import messages
from nats.aio.client import Client

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.fleet import Fleet, fleet
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.nats import NatsServer
from tests.support.proxy import FaultProxy

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)
TOKEN = "token"
PUSHES = f"kp1/app_v1/dcx/{TOKEN}/#"


async def queued_on(fleet: Fleet, number: int, cluster: Cluster, payload: bytes) -> None:
    """Leave a session with a message on a worker."""
    async with mqtt_client(fleet.ports[number], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=1)
        await until(lambda: len(fleet.workers[number].sessions.endpoints) > 0, "the endpoint")
        await peer.send(Disconnect())
        assert await peer.until_closed() == []
    await cluster.push(TOKEN, payload)
    await asyncio.sleep(0.1)


def break_off(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.cut()


async def test_a_session_left_behind_is_not_delivered_when_nats_is_back(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    """The first worker loses NATS. The client gets a new session on the second, and the first discards its own."""
    with FaultProxy(shared_nats.port) as proxy:
        async with fleet([proxy.url, shared_nats.url]) as two:
            await queued_on(two, 0, cluster, b"old")
            break_off(proxy)
            await until(lambda: not two.workers[0].link.ready, "the loss of NATS")
            async with mqtt_client(two.ports[1], "c", clean_session=False) as peer:
                await peer.subscribe(PUSHES, qos=1)
                await peer.send(Disconnect())
                assert await peer.until_closed() == []
            assert two.count() == 2
            proxy.refuse(on=False)
            await until(lambda: two.count() == 1, "the end of the older session")
            assert two.reason("dropped", "session_left_behind") == 1
            await cluster.push(TOKEN, b"new")
            for port in (two.ports[0], two.ports[1]):
                async with mqtt_peer(port) as peer:
                    assert await peer.connect("c", clean_session=False) == RESUMED
                    if port == two.ports[0]:
                        publish = await peer.expect(Publish)
                        assert publish.payload == b"new"
                        await peer.send(Puback(publish.packet_id))
                    assert await peer.until_pingresp() == []
                    await peer.send(Disconnect())
                    assert await peer.until_closed() == []


async def test_without_nats_a_client_resumes_the_session_of_its_worker(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    with FaultProxy(shared_nats.port) as proxy:
        async with fleet([proxy.url, shared_nats.url]) as two:
            await queued_on(two, 0, cluster, b"kept")
            break_off(proxy)
            await until(lambda: not two.workers[0].link.ready, "the loss of NATS")
            async with mqtt_peer(two.ports[0]) as peer:
                assert await peer.connect("c", clean_session=False) == RESUMED
                assert (await peer.expect(Publish)).payload == b"kept"
            assert two.claims("away") == 1


async def test_the_older_of_two_connections_is_closed_when_nats_is_back(shared_nats: NatsServer) -> None:
    with FaultProxy(shared_nats.port) as proxy:
        async with fleet([proxy.url, shared_nats.url]) as two:
            break_off(proxy)
            await until(lambda: not two.workers[0].link.ready, "the loss of NATS")
            async with mqtt_peer(two.ports[0]) as old, mqtt_peer(two.ports[1]) as new:
                assert await old.connect("c", clean_session=False) == NEW
                assert await new.connect("c", clean_session=False) == NEW
                proxy.refuse(on=False)
                assert await old.until_closed() == []
                assert await new.until_pingresp() == []
            await until(lambda: two.count() == 1, "one session")


async def test_a_worker_that_does_not_answer_holds_clients_up_for_the_timeout_only(
    shared_nats: NatsServer,
) -> None:
    """A subscriber that is not a worker stands for one that hangs. After some claims in vain, none waits."""
    client = Client()
    await client.connect(shared_nats.url)
    await client.subscribe(messages.session_prefix("kpc") + "*")
    await client.flush()
    try:
        async with fleet(shared_nats.url, 1, mqtt={"takeover_timeout": 0.1}) as one:
            await until(lambda: not one.workers[0].directory.others.alone, "company")
            for number in range(5):
                async with mqtt_peer(one.ports[0]) as peer:
                    assert await peer.connect(f"c{number}", clean_session=False) == NEW
                    assert await peer.until_pingresp() == []
            assert (one.claims("timeout"), one.claims("away")) == (3, 2)
    finally:
        await client.close()


async def test_a_worker_alone_asks_nobody(shared_nats: NatsServer) -> None:
    async with fleet(shared_nats.url, 1) as one:
        await until(lambda: one.workers[0].directory.others.alone, "the greeting without an answer")
        async with mqtt_client(one.ports[0], "c", clean_session=False):
            assert (one.claims("alone"), one.claims("nobody")) == (1, 0)
