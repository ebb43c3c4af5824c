"""Answers and pushes that come while a session moves reach its client once, on the new worker.

The workers are replicas of each other on one real nats-server; the clients are bare packets.
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from kaa_bench.mqtt_packets import Connack, Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from kaa_gateway.bus import subjects
from kaa_gateway.fleet import messages
from kaa_gateway.fleet.directory import session_name
from kaa_gateway.fleet.messages import Forwarded

from tests.support.cluster import Cluster, Request
from tests.support.esp import until
from tests.support.fleet import Fleet, fleet
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.mqtt5.packets import Publish as Publish5
from tests.support.mqtt5.peer import mqtt5_peer
from tests.support.mqtt5.properties import Property
from tests.support.nats import NatsServer

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)
TOKEN = "token"
TOPIC = f"kp1/app_v1/dcx/{TOKEN}/json"
PUSHES = f"kp1/app_v1/dcx/{TOKEN}/#"
EXPIRY = ((Property.SESSION_EXPIRY_INTERVAL, 60),)


@pytest.fixture
async def three(shared_nats: NatsServer) -> AsyncIterator[Fleet]:
    async with fleet(shared_nats.url, 3) as found:
        yield found


def only(number: int) -> str:
    """Return the subject on which one worker alone gets an ExtensionData."""
    return subjects.replica(f"replica-{number}", "esp", subjects.EXTENSION_DATA)


async def resume(peer: MqttPeer) -> None:
    assert await peer.connect("c", clean_session=False) == RESUMED


async def leave(peer: MqttPeer) -> None:
    await peer.send(Disconnect())
    assert await peer.until_closed() == []


async def ask(peer: MqttPeer, cluster: Cluster, qos: int) -> Request:
    """Send a request, and return it as its extension gets it."""
    await peer.send(Publish(f"{TOPIC}/7", b"question", qos, 1 if qos else 0))
    if qos == 1:
        await peer.expect(Puback)
    elif qos == 2:
        await peer.expect(Pubrec)
        await peer.send(Pubrel(1))
        await peer.expect(Pubcomp)
    return await cluster.request()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_an_answer_follows_its_session(three: Fleet, cluster: Cluster, qos: int) -> None:
    async with mqtt_client(three.ports[0], "c", clean_session=False) as old:
        request = await ask(old, cluster, qos)
        async with mqtt_peer(three.ports[1]) as new:
            await resume(new)
            await cluster.answer(request, b"answer")
            publish = await new.expect(Publish)
            assert (publish.topic, publish.payload, publish.qos) == (f"{TOPIC}/7/status", b"answer", qos)
            assert await new.until_pingresp() == []
    assert three.reason("dropped", "no_session") == 0


async def test_an_answer_follows_its_session_twice_and_back(three: Fleet, cluster: Cluster) -> None:
    """Each worker knows the next one; in the end, the session is where the request was sent."""
    async with mqtt_client(three.ports[0], "c", clean_session=False) as peer:
        request = await ask(peer, cluster, 1)
        await leave(peer)
    for number in (1, 2, 0):
        async with mqtt_peer(three.ports[number]) as peer:
            await resume(peer)
            await cluster.answer(request, b"%d" % number)
            publish = await peer.expect(Publish)
            assert publish.payload == b"%d" % number
            await peer.send(Puback(publish.packet_id))
            assert await peer.until_pingresp() == []
            await leave(peer)


async def test_an_answer_waits_for_a_client_that_is_away(three: Fleet, cluster: Cluster) -> None:
    async with mqtt_client(three.ports[0], "c", clean_session=False) as peer:
        request = await ask(peer, cluster, 1)
    async with mqtt_peer(three.ports[1]) as peer:
        await resume(peer)
        await leave(peer)
    await cluster.answer(request, b"answer")
    await until(lambda: three.workers[1].directory.transfers.messages["in"] == 1, "the answer")
    async with mqtt_peer(three.ports[2]) as peer:
        await resume(peer)
        assert (await peer.expect(Publish)).payload == b"answer"


async def test_a_response_topic_moves(three: Fleet, cluster: Cluster) -> None:
    async with mqtt5_peer(three.ports[0]) as old, mqtt5_peer(three.ports[1]) as new:
        await old.connect("c", clean_start=False, properties=EXPIRY)
        for number in range(3):
            properties = (
                (Property.RESPONSE_TOPIC, f"answers/{number}"),
                (Property.CORRELATION_DATA, b"%d" % number),
            )
            await old.send(Publish5(TOPIC, b"question", 0, 0, properties=properties))
        requests = await cluster.next_requests(3)
        assert (await new.connect("c", clean_start=False, properties=EXPIRY)).session_present
        for number in (2, 0, 1):
            await cluster.answer(requests[number], b"answer")
            publish = await new.expect(Publish5)
            assert (publish.topic, publish.payload) == (f"answers/{number}", b"answer")
            assert (Property.CORRELATION_DATA, b"%d" % number) in publish.properties


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_push_that_the_former_worker_gets_alone_arrives(
    three: Fleet, cluster: Cluster, qos: int
) -> None:
    """As if the new worker had got it before the session."""
    async with mqtt_client(three.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=qos)
        await until(lambda: len(three.workers[0].sessions.endpoints) > 0, "the endpoint")
    async with mqtt_peer(three.ports[1]) as peer:
        await resume(peer)
        await cluster.push(TOKEN, b"push", subject=only(0))
        publish = await peer.expect(Publish)
        assert (publish.payload, publish.qos) == (b"push", qos)


async def test_a_push_that_both_workers_get_arrives_once(three: Fleet, cluster: Cluster) -> None:
    async with mqtt_client(three.ports[0], "c", clean_session=False) as peer:
        await peer.subscribe(PUSHES, qos=2)
        await until(lambda: len(three.workers[0].sessions.endpoints) > 0, "the endpoint")
    async with mqtt_peer(three.ports[1]) as peer:
        await resume(peer)
        for number in range(200):
            await cluster.push(TOKEN, b"%d" % number)
        await until(lambda: three.workers[1].directory.transfers.messages["in"] == 200, "all pushes again")
        payloads = [packet.payload for packet in await peer.until_pingresp() if isinstance(packet, Publish)]
        window = len(payloads)
        assert payloads == [b"%d" % number for number in range(window)]
    assert three.reason("dropped", "repeated_push") == 200
    assert three.reason("dropped", "no_session") == 0


async def test_a_worker_that_stops_sends_after_its_last_session(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    async with fleet(shared_nats.url, 2) as two:
        async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
            request = await ask(peer, cluster, 1)
        stopping = asyncio.create_task(two.workers[0].stop())
        await until(lambda: two.workers[1].directory.transfers.sessions["in"] == 1, "the session")
        await cluster.answer(request, b"answer")
        await stopping
        async with mqtt_peer(two.ports[1]) as peer:
            await resume(peer)
            assert (await peer.expect(Publish)).payload == b"answer"


async def test_hostile_messages_go_nowhere(three: Fleet, cluster: Cluster) -> None:
    """They neither end the link nor go round for ever."""
    name = session_name("session", "", "c")
    async with mqtt_client(three.ports[0], "c", clean_session=False) as peer:
        hostile = [
            Forwarded(name, 0, None, 0, b"", b""),
            Forwarded(name, 8, 1, 0, b"", b"\xff" * 100),
            Forwarded(name, 0, 2, (1 << 28) - 1, b"NATS/1.0\r\nKaa-Receipt-To: a b\r\n\r\n", b"\x02a"),
            Forwarded("0" * 32, 0, None, 0, b"", b"x"),
        ]
        payloads = [messages.encode(each) for each in hostile]
        payloads += [
            msgspec.msgpack.encode(["forwarded", name, 9, None, 0, b"", b""]),
            msgspec.msgpack.encode(["forwarded", name, 0, 3, 0, b"", b""]),
            msgspec.msgpack.encode(["forwarded", name, 0, None, 1 << 28, b"", b""]),
        ]
        for payload in payloads:
            await cluster.nats.publish(messages.inbox_prefix("replica-0") + "1", payload)
        await until(lambda: three.reason("dropped", "no_session") == 4, "what can be read")
        await until(lambda: three.reason("dropped", "session_message_malformed") == 3, "the others")
        assert await peer.until_pingresp() == []
    assert [worker.link.connects for worker in three.workers] == [1, 1, 1]
