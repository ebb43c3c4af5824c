"""A client and its session are there once among all workers of an instance: MQTT 3.1.1 sections 3.1.2.4, 3.1.4, 4.1.

The workers are replicas of each other on one real nats-server; the clients are bare packets.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.mqtt_packets import (
    Connack,
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Will,
)
from kaa_gateway.config.keys import IdentitySettings
from kaa_gateway.config.keys.identity import Clients, StaticIdentity
from kaa_gateway.identity import passwords

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.fleet import Fleet, fleet
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.mqtt5.packets import Disconnect as Disconnect5
from tests.support.mqtt5.peer import mqtt5_peer
from tests.support.mqtt5.properties import Property
from tests.support.nats import NatsServer
from tests.support.nats_cluster import NatsCluster

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)
TOKEN = "token"
TOPIC = f"kp1/app_v1/dcx/{TOKEN}/json"
STATUS = f"{TOPIC}/status"
PUSHES = f"kp1/app_v1/dcx/{TOKEN}/#"


@pytest.fixture
async def two(shared_nats: NatsServer) -> AsyncIterator[Fleet]:
    async with fleet(shared_nats.url, 2) as found:
        yield found


async def resumed(peer: MqttPeer, client_id: str = "c", **fields: object) -> None:
    assert await peer.connect(client_id, clean_session=False, **fields) == RESUMED


async def leave(peer: MqttPeer) -> None:
    await peer.send(Disconnect())
    assert await peer.until_closed() == []


async def attached(fleet: Fleet, number: int = 0) -> None:
    await until(lambda: len(fleet.workers[number].sessions.endpoints) > 0, "the endpoint")


async def test_a_session_is_found_wherever_its_client_comes_back(two: Fleet) -> None:
    for visit in range(12):
        async with mqtt_peer(two.ports[visit % 2]) as peer:
            assert await peer.connect("c", clean_session=False) == (RESUMED if visit else NEW)
            await leave(peer)
    assert two.moved() == 11
    assert two.count() == 1


async def test_an_old_connection_is_closed_and_its_will_comes_first(two: Fleet, cluster: Cluster) -> None:
    will = Will(TOPIC, b"gone", qos=1)
    async with mqtt_peer(two.ports[0]) as old, mqtt_peer(two.ports[1]) as new:
        assert await old.connect("c", clean_session=False, will=will) == NEW
        await resumed(new)
        await new.send(Publish(TOPIC, b"here", 1, 1))
        assert await old.until_closed() == []
        payloads = [request.fields["payload"] for request in await cluster.next_requests(2)]
        assert payloads == [b"gone", b"here"]
    assert two.reason("closed", "mqtt_taken_over") == 1


async def test_a_client_of_mqtt_5_is_told_that_it_is_taken_over(two: Fleet) -> None:
    async with mqtt5_peer(two.ports[0]) as old, mqtt5_peer(two.ports[1]) as new:
        await old.connect("c", clean_start=False, properties=((Property.SESSION_EXPIRY_INTERVAL, 60),))
        connack = await new.connect(
            "c", clean_start=False, properties=((Property.SESSION_EXPIRY_INTERVAL, 60),)
        )
        assert connack.session_present
        disconnect = await old.expect(Disconnect5)
        assert disconnect.reason_code == 0x8E
        assert await old.receive() is None


async def test_subscriptions_and_queued_messages_move(two: Fleet, cluster: Cluster) -> None:
    """What waits for the client reaches it on another worker, in order, at the QoS of its subscription."""
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=1)
        await attached(two)
        await leave(peer)
    for number in range(5):
        await cluster.push(TOKEN, b"%d" % number)
    async with mqtt_peer(two.ports[1]) as peer:
        await resumed(peer)
        for number in range(5):
            publish = await peer.expect(Publish)
            assert (publish.topic, publish.payload, publish.qos) == (STATUS, b"%d" % number, 1)
            assert not publish.dup
            await peer.send(Puback(publish.packet_id))
        await cluster.push(TOKEN, b"later")
        assert (await peer.expect(Publish)).payload == b"later"
        assert await peer.until_pingresp() == []
    assert two.count() == 1


async def test_a_finished_message_does_not_come_again_on_the_first_worker(
    two: Fleet, cluster: Cluster
) -> None:
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=1)
        await attached(two)
        await leave(peer)
    await cluster.push(TOKEN, b"once")
    async with mqtt_peer(two.ports[1]) as peer:
        await resumed(peer)
        await peer.send(Puback((await peer.expect(Publish)).packet_id))
        assert await peer.until_pingresp() == []
        await leave(peer)
    for port in (*two.ports, *two.ports):
        async with mqtt_peer(port) as peer:
            await resumed(peer)
            assert await peer.until_pingresp() == []
            await leave(peer)


async def test_a_repeated_push_is_known_after_the_move(two: Fleet, cluster: Cluster) -> None:
    """An extension that is not sure repeats a push under the same correlation ID."""
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=1)
        await attached(two)
        await cluster.push(TOKEN, b"once", correlationId="the-same")
        await peer.send(Puback((await peer.expect(Publish)).packet_id))
        assert await peer.until_pingresp() == []
    async with mqtt_peer(two.ports[1]) as peer:
        await resumed(peer)
        await cluster.push(TOKEN, b"once", correlationId="the-same")
        await cluster.push(TOKEN, b"another", correlationId="another")
        assert (await peer.expect(Publish)).payload == b"another"


async def test_unacknowledged_messages_are_sent_again_with_dup_in_order(two: Fleet, cluster: Cluster) -> None:
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=2)
        await attached(two)
        sent = []
        for number in range(3):
            await cluster.push(TOKEN, b"%d" % number)
            sent.append(await peer.expect(Publish))
        await peer.abort()
    async with mqtt_peer(two.ports[1]) as peer:
        await resumed(peer)
        again = [await peer.expect(Publish) for _ in range(3)]
        assert again == [publish._replace(dup=True) for publish in sent]


@pytest.mark.parametrize("step", ["publish", "pubrec", "pubrel"])
async def test_a_qos_2_message_to_the_client_moves_at_each_step(
    two: Fleet, cluster: Cluster, step: str
) -> None:
    """The client gets it exactly once: as a PUBLISH with DUP, or only its PUBREL (4.3.3)."""
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=2)
        await attached(two)
        await cluster.push(TOKEN, b"once")
        publish = await peer.expect(Publish)
        if step != "publish":
            await peer.send(Pubrec(publish.packet_id))
            assert (await peer.expect(Pubrel)).packet_id == publish.packet_id
        if step == "pubrel":
            await peer.send(Pubcomp(publish.packet_id))
            assert await peer.until_pingresp() == []
    async with mqtt_peer(two.ports[1]) as peer:
        await resumed(peer)
        if step == "publish":
            assert await peer.expect(Publish) == publish._replace(dup=True)
            await peer.send(Pubrec(publish.packet_id))
        if step != "pubrel":
            assert (await peer.expect(Pubrel)).packet_id == publish.packet_id
            await peer.send(Pubcomp(publish.packet_id))
        assert await peer.until_pingresp() == []
        await leave(peer)
    async with mqtt_peer(two.ports[0]) as peer:
        await resumed(peer)
        assert await peer.until_pingresp() == []


@pytest.mark.parametrize("step", ["unread", "publish", "pubrec", "pubrel"])
async def test_a_qos_2_message_of_the_client_moves_at_each_step(
    two: Fleet, cluster: Cluster, step: str
) -> None:
    """The extension gets it once, however far its handshake was when the client moved (4.3.3)."""
    publish = Publish(TOPIC, b"once", 2, 7)
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.send(publish)
        if step != "unread":
            assert (await peer.expect(Pubrec)).packet_id == 7
        if step in ("pubrec", "pubrel"):
            await peer.send(Pubrel(7))
        if step == "pubrel":
            assert (await peer.expect(Pubcomp)).packet_id == 7
        async with mqtt_peer(two.ports[1]) as moved:
            await resumed(moved)
            if step in ("unread", "publish"):
                await moved.send(publish._replace(dup=True))
                assert (await moved.expect(Pubrec)).packet_id == 7
            if step != "pubrel":
                await moved.send(Pubrel(7))
                assert (await moved.expect(Pubcomp)).packet_id == 7
            # The packet identifier is free again, for another message.
            await moved.send(Publish(TOPIC, b"other", 2, 7))
            assert (await moved.expect(Pubrec)).packet_id == 7
    payloads = [request.fields["payload"] for request in await cluster.next_requests(2)]
    assert payloads == [b"once", b"other"]
    await asyncio.sleep(0.1)
    assert len(cluster.requests) == 2


async def test_a_clean_start_discards_what_another_worker_remembers(two: Fleet, cluster: Cluster) -> None:
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=1)
        await attached(two)
        await leave(peer)
    await cluster.push(TOKEN, b"never")
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect("c", clean_session=True) == NEW
        await until(lambda: two.count() == 1, "the end of the other session")
        await leave(peer)
    for port in two.ports:
        async with mqtt_peer(port) as peer:
            assert await peer.connect("c", clean_session=False) == (NEW if port == two.ports[0] else RESUMED)
            assert await peer.until_pingresp() == []
            await leave(peer)


async def test_anonymous_clients_that_nothing_tells_apart_live_side_by_side(two: Fleet) -> None:
    async with mqtt_client(two.ports[0], "shared") as first, mqtt_client(two.ports[1], "shared") as second:
        assert await first.until_pingresp() == []
        assert await second.until_pingresp() == []


async def test_an_anonymous_client_that_its_will_tells_apart_is_there_once(
    two: Fleet, cluster: Cluster
) -> None:
    will = Will(TOPIC, b"gone", qos=1)
    async with (
        mqtt_client(two.ports[0], "s", will=will) as old,
        mqtt_client(two.ports[1], "s", will=will) as new,
    ):
        assert await old.until_closed() == []
        assert (await cluster.request()).fields["payload"] == b"gone"
        assert await new.until_pingresp() == []


async def storm(fleet: Fleet) -> None:
    """Connect one client many times at once on all workers, and expect that one connection and one session remain."""

    async def connect(peer: MqttPeer) -> None:
        await peer.send(
            mqtt.encode(mqtt.Connect("storm", clean_session=False, keep_alive=0), mqtt.LEVEL_3_1_1)
        )

    async with AsyncExitStack() as stack:
        for _ in range(5):
            peers = [
                await stack.enter_async_context(mqtt_peer(port)) for port in fleet.ports for _ in range(4)
            ]
            await asyncio.gather(*(connect(peer) for peer in peers))
            await until(
                lambda: not any(len(worker.directory.claims) for worker in fleet.workers), "all claims"
            )
            await until(lambda: fleet.online() == 1, "one connection")
            await asyncio.sleep(0.3)
            assert (fleet.online(), fleet.count()) == (1, 1)


async def test_a_storm_of_connects_leaves_one_connection(shared_nats: NatsServer) -> None:
    async with fleet(shared_nats.url, 4) as four:
        await storm(four)
        assert four.claims("timeout") == 0


async def test_a_storm_over_a_cluster_of_nats_servers_leaves_one_connection() -> None:
    """Each worker has a server of its own, which learns of the subscriptions of others with a delay."""
    with NatsCluster() as servers:
        async with fleet(servers.urls, 3) as three:
            await storm(three)


async def test_a_state_larger_than_a_message_of_nats_moves_in_parts(two: Fleet, cluster: Cluster) -> None:
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=1)
        await attached(two)
        await leave(peer)
    payloads = [bytes([number]) * 300_000 for number in range(3)]
    for payload in payloads:
        await cluster.push(TOKEN, payload)
    await asyncio.sleep(0.2)
    async with mqtt_peer(two.ports[1]) as peer:
        await resumed(peer)
        for payload in payloads:
            publish = await peer.expect(Publish)
            assert publish.payload == payload
            await peer.send(Puback(publish.packet_id))


async def test_authenticated_clients_are_there_once_each(shared_nats: NatsServer, tmp_path: Path) -> None:
    """A clean session is taken over too, but only by the same principal: client identifiers are scoped to it."""
    users = {name: {"password": passwords.hashed(name.encode())} for name in ("alice", "bob")}
    (tmp_path / "identity.yml").write_text(json.dumps({"endpoints": {}, "clients": users}))
    identity = IdentitySettings(
        static=StaticIdentity(file=tmp_path / "identity.yml"), clients=Clients(provider="static")
    )

    async def connect(peer: MqttPeer, name: str) -> None:
        connack = await peer.connect("c", user_name=name, password=name.encode())
        assert connack == NEW

    async with (
        fleet(shared_nats.url, 2, mqtt={"client_authentication": "required"}, identity=identity) as two,
        mqtt_peer(two.ports[0]) as alice,
        mqtt_peer(two.ports[1]) as bob,
        mqtt_peer(two.ports[1]) as alice_again,
    ):
        await connect(alice, "alice")
        await connect(bob, "bob")
        assert await alice.until_pingresp() == []
        await connect(alice_again, "alice")
        assert await alice.until_closed() == []
        assert await bob.until_pingresp() == []
        assert two.count() == 2


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
async def test_authenticated_clients_roam_among_four_workers(
    shared_nats: NatsServer, tmp_path: Path, clean: bool
) -> None:
    """Two principals with one client identifier do not meet, however often both connect at the same time."""
    names = ("alice", "bob")
    users = {name: {"password": passwords.hashed(name.encode())} for name in names}
    (tmp_path / "identity.yml").write_text(json.dumps({"endpoints": {}, "clients": users}))
    identity = IdentitySettings(
        static=StaticIdentity(file=tmp_path / "identity.yml"), clients=Clients(provider="static")
    )
    settings = {"client_authentication": "required"}
    async with fleet(shared_nats.url, 4, mqtt=settings, identity=identity) as four, AsyncExitStack() as stack:

        async def visit(name: str, number: int) -> MqttPeer:
            peer = await stack.enter_async_context(mqtt_peer(four.ports[number]))
            connack = await peer.connect("c", clean_session=clean, user_name=name, password=name.encode())
            assert connack.return_code == 0
            return peer

        old = [await visit(name, 0) for name in names]
        for number in (1, 2, 3, 3, 1, 0):
            new = await asyncio.gather(*(visit(name, number) for name in names))
            for peer in old:
                assert await peer.until_closed() == []
            for peer in new:
                assert await peer.until_pingresp() == []
            assert (four.online(), four.count()) == (2, 2)
            old = list(new)
        assert four.reason("closed", "mqtt_taken_over") == 12
        assert four.moved() == (0 if clean else 10)
