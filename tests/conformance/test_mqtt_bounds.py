"""The bounds of what a client can make the gateway hold.

Up to it all is well; beyond it that client is told, or closed, and nobody else notices.
"""

import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from kaa_bench.mqtt_packets import Connack, Puback, Publish, Suback, Subscribe, Unsubscribe, encode

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]

PACKET_SIZE_MAX = 4096
OUTPUT_BUFFER = 64 * 1024
"""Bytes."""
CONNECTIONS = 4


@pytest.fixture(scope="module")
def tight_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway with small bounds."""
    kpc = {
        "transports": {"mqtt": {"max-packet-size": PACKET_SIZE_MAX, "subscriptions-per-client": 3}},
        "limits": {
            "connections": CONNECTIONS,
            "endpoints-per-connection": 2,
            "output-buffer": OUTPUT_BUFFER,
            "route-cache": 4,
            "topic-length": 100,
        },
    }
    with GatewayProcess(shared_nats.url, {"kaa": {"kpc": kpc}}) as process:
        yield process


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx", "unaware") as cluster:
        yield cluster


async def test_packet_size(tight_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken) -> None:
    """The bound includes the fixed header; one byte more is refused as soon as the header is there."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    overhead = len(encode(Publish(topic, bytes(200)))) - 200
    payload = b"x" * (PACKET_SIZE_MAX - overhead)
    largest = encode(Publish(topic, payload))
    assert len(largest) == PACKET_SIZE_MAX
    before = tight_gateway.count("events", "closed", "mqtt_packet_too_large")
    async with mqtt_client(tight_gateway.mqtt_port) as device:
        await device.send(largest)
        assert (await cluster.request()).fields["payload"] == payload
        await device.send(encode(Publish(topic, payload + b"x"))[:3])
        assert await device.until_closed() == []
    assert tight_gateway.count("events", "closed", "mqtt_packet_too_large") == before + 1


async def test_subscriptions(tight_gateway: GatewayProcess) -> None:
    """3.9.3: 0x80 for each filter beyond; one that is there may change its QoS, one that has gone makes room."""
    before = tight_gateway.count("events", "refused", "too_many_subscriptions")
    async with mqtt_client(tight_gateway.mqtt_port) as device:
        assert await device.subscribe("a", "b", qos=1) == (1, 1)
        assert await device.subscribe("c", "d", "a", "e", qos=2) == (2, 0x80, 2, 0x80)
        await device.send(Unsubscribe(3, ("b",)), Subscribe(4, (("d", 0), ("e", 0))))
        await device.receive()
        assert await device.expect(Suback) == Suback(4, (0, 0x80))
    assert tight_gateway.count("events", "refused", "too_many_subscriptions") == before + 3


async def test_length_of_a_topic_filter(tight_gateway: GatewayProcess) -> None:
    """A filter longer than any resource path can be is refused, so that filters take bounded memory."""
    before = tight_gateway.count("events", "refused", "topic_filter_too_long")
    async with mqtt_client(tight_gateway.mqtt_port) as device:
        assert await device.subscribe("a" * 100, "a" * 101, qos=1) == (1, 0x80)
    assert tight_gateway.count("events", "refused", "topic_filter_too_long") == before + 1


async def test_bytes_queued_for_an_absent_client(
    tight_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The queue of a session has a bound in bytes beside the one in messages."""
    token = new_token()
    before = tight_gateway.count("events", "dropped", "session_queue_full")
    async with mqtt_client(tight_gateway.mqtt_port, token, clean_session=False) as device:
        await device.subscribe(f"kp1/app_v1/dcx/{token}/#", qos=1)
        await cluster.connectivity("connected", token)
    await cluster.connectivity("disconnected", token)
    for _ in range(4):
        await cluster.push(token, bytes(OUTPUT_BUFFER // 3))
    await until(
        lambda: tight_gateway.count("events", "dropped", "session_queue_full") == before + 2,
        "two pushes dropped",
    )
    async with mqtt_client(tight_gateway.mqtt_port, token, clean_session=False) as device:
        kept = [await device.expect(Publish) for _ in range(2)]
        assert all(len(push.payload) == OUTPUT_BUFFER // 3 for push in kept)


async def test_endpoints_of_a_connection(
    tight_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """One token more gets 429, also if its route is known from another connection."""
    tokens = [new_token() for _ in range(3)]
    topics = [f"kp1/app_v1/dcx/{token}/json/1" for token in tokens]
    async with mqtt_client(tight_gateway.mqtt_port) as device, mqtt_client(tight_gateway.mqtt_port) as other:
        for _ in range(2):
            await device.send(*(Publish(topic, b"", 1, n) for n, topic in enumerate(topics, start=1)))
            received = [await device.receive() for _ in range(4)]
            assert [packet for packet in received if isinstance(packet, Puback)] == [
                Puback(1),
                Puback(2),
                Puback(3),
            ]
            (error,) = (packet for packet in received if isinstance(packet, Publish))
            assert error.topic == f"{topics[2]}/error"
            assert json.loads(error.payload) == {
                "statusCode": 429,
                "reasonPhrase": "Too many endpoints on one connection",
            }
            # The other connection makes the route of the third token known.
            await other.send(Publish(topics[2], b"", 1, 9))
            assert await other.expect(Puback) == Puback(9)
        assert await device.until_pingresp() == []


async def test_tokens_beyond_the_bound_leave_nothing(
    tight_gateway: GatewayProcess, new_token: NewToken
) -> None:
    """The bound holds however many tokens a connection tries, by PUBLISH or by SUBSCRIBE."""
    async with mqtt_client(tight_gateway.mqtt_port) as device:
        await device.send(*(Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"", 1, n) for n in (1, 2)))
        while await device.receive() != Puback(2):
            pass
        before = tight_gateway.count("endpoints")
        await device.send(*(Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"", 1, n) for n in range(3, 103)))
        while await device.receive() != Puback(102):
            pass
        for _ in range(50):
            await device.subscribe(f"kp1/app_v1/dcx/{new_token()}/#")
        assert await device.until_pingresp() == []
        assert tight_gateway.count("endpoints") == before


async def test_connections(tight_gateway: GatewayProcess) -> None:
    before = tight_gateway.count("events", "closed", "too_many_connections")
    peers = [mqtt_client(tight_gateway.mqtt_port) for _ in range(CONNECTIONS)]
    clients = [await peer.__aenter__() for peer in peers]
    async with mqtt_peer(tight_gateway.mqtt_port) as late:
        assert await late.until_closed() == []
    assert tight_gateway.count("events", "closed", "too_many_connections") == before + 1
    for client in clients:
        assert await client.until_pingresp() == []
    closed = tight_gateway.count("connections_closed", "mqtt")
    await peers.pop().__aexit__(None, None, None)
    await until(lambda: tight_gateway.count("connections_closed", "mqtt") > closed, "the connection to end")
    async with mqtt_peer(tight_gateway.mqtt_port) as in_its_place:
        assert await in_its_place.connect() == Connack(False, 0)
    for peer in peers:
        await peer.__aexit__(None, None, None)


async def test_output_to_a_client_that_does_not_read(
    tight_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """A slow reader is closed when its output passes the bound, and others are not delayed."""
    token = new_token()
    before = tight_gateway.count("events", "closed", "slow_reader")
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((HOST, tight_gateway.mqtt_port))
        stuck.sendall(bytes.fromhex("100c 00044d515454 04 02 0000 0000"))
        stuck.sendall(encode(Subscribe(1, ((f"kp1/app_v1/dcx/{token}/#", 0),))))
        await cluster.connectivity("connected", token)
        async with mqtt_client(tight_gateway.mqtt_port) as device:
            for _ in range(40):
                await cluster.push(token, bytes(512 * 1024))
                assert await device.until_pingresp() == []
                if tight_gateway.count("events", "closed", "slow_reader") > before:
                    break
    assert tight_gateway.count("events", "closed", "slow_reader") == before + 1
    await cluster.connectivity("disconnected", token)


async def test_a_client_that_is_dead_with_output_waiting_is_cut_off(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """A client past its keep-alive that never reads is closed, and its endpoint is disconnected."""
    token = new_token()
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((HOST, shared_gateway.mqtt_port))
        stuck.sendall(bytes.fromhex("100c 00044d515454 04 02 0001 0000"))
        stuck.sendall(encode(Subscribe(1, ((f"kp1/app_v1/dcx/{token}/#", 0),))))
        await cluster.connectivity("connected", token)
        for _ in range(6):
            await cluster.push(token, bytes(900_000))
        await cluster.connectivity("disconnected", token)


async def test_routes(tight_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken) -> None:
    """The cache keeps its bound when a client counts up path levels, and every message still arrives."""
    token = new_token()
    async with mqtt_client(tight_gateway.mqtt_port) as device:
        await device.send(*(Publish(f"kp1/app_v1/dcx/{token}/{n}x", b"%d" % n, 1, n) for n in range(1, 101)))
        assert [await device.expect(Puback) for _ in range(100)] == [Puback(n) for n in range(1, 101)]
        assert tight_gateway.count("routes") <= 4
        requests = await cluster.next_requests(100)
        assert [request.fields["resourcePath"] for request in requests] == [f"/{n}x" for n in range(1, 101)]
        # Endpoints whose routes have gone, and who have no session, are forgotten with them.
        count = tight_gateway.count("endpoints")
    for _ in range(20):
        async with mqtt_client(tight_gateway.mqtt_port) as device:
            await device.send(Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"", 1, 1))
            assert await device.expect(Puback) == Puback(1)
    assert tight_gateway.count("endpoints") <= count + 4


async def test_topics(tight_gateway: GatewayProcess, cluster: Cluster) -> None:
    fits = "kp1/app_v1/unaware/".ljust(100, "x")
    async with mqtt_client(tight_gateway.mqtt_port) as device:
        await device.send(Publish(fits, b"", 1, 1), Publish(f"{fits}x", b"", 1, 2))
        received = [await device.receive() for _ in range(3)]
        (error,) = (packet for packet in received if isinstance(packet, Publish))
        assert error.topic == f"{fits}x/error"
        assert (await cluster.request()).fields["resourcePath"] == fits.removeprefix("kp1/app_v1/unaware")
