"""What a hostile or silent peer of KP over UDP can make the server hold, or send.

Source: docs/kp-over-udp.md, "Peers, and their address" and "Confirmable messages".
"""

import asyncio
import functools
from contextlib import AsyncExitStack, ExitStack

import pytest
from kaa_gateway.wire.kpudp import Message, Type, decode, encode

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.kpudp import RawDevice, client, kpudp_gateway
from tests.support.nats import NatsServer

PATH = "kp1/app_v1/dcx/tok/json"
EPOCH = 1
AMPLIFICATION_MAX = 3
TRANSMISSIONS = 6


def data(message_id: int) -> bytes:
    return encode(EPOCH, [Message(Type.DATA, message_id, path=PATH)])


def request(message_id: int) -> bytes:
    return encode(EPOCH, [Message(Type.REQUEST, message_id, path=PATH)])


async def frames_of(device: RawDevice, kind: Type) -> Message:
    """The next frame of a type."""
    while True:
        for frame in decode(await device.receive())[1]:
            if frame.type == kind:
                return frame


async def prove(device: RawDevice, path: str) -> None:
    """Announce an endpoint, and answer the server's PING."""
    device.send(encode(EPOCH, [Message(Type.PING, 1, path=path, payload=bytes(8))]))
    ping = await frames_of(device, Type.PING)
    device.send(encode(EPOCH, [Message(Type.PONG, ping.message_id, payload=ping.payload)]))


async def test_peers_are_bounded_and_strangers_displace_only_strangers(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    async with kpudp_gateway(shared_nats.url, peers=8) as server, AsyncExitStack() as stack:
        proved = await stack.enter_async_context(client(server.port))
        await proved.ping("kp1/app_v1/dcx/proved")
        await until(lambda: server.transport.peers.counts() == (1, 0), "a proved peer")
        for count in range(5):
            stack.enter_context(RawDevice(server.port)).send(data(count))
        await cluster.next_requests(5)
        assert server.transport.peers.counts() == (1, 2)
        assert server.count("closed", "kpudp_too_many_peers") == 3
        assert "proved" in server.presence.present
        for number in range(7):
            other = await stack.enter_async_context(client(server.port))
            await other.ping()
            expected = min(2 + number, 6)
            await until(
                functools.partial(lambda count: server.transport.peers.counts()[0] == count, expected),
                "a peer",
            )
        assert "proved" not in server.presence.present  # the longest unheard
        assert server.sessions.count == sum(server.transport.peers.counts())


async def test_a_peer_in_an_exchange_stays_while_an_idle_one_can_go(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    async with kpudp_gateway(shared_nats.url, peers=8) as server:
        with RawDevice(server.port) as busy, ExitStack() as stack:
            busy.send(request(1))
            await cluster.next_requests(1)
            for count in range(6):
                stack.enter_context(RawDevice(server.port)).send(data(count))
            requests = await cluster.next_requests(7)
            await cluster.answer(requests[0], b"answer")
            assert (await frames_of(busy, Type.RESPONSE)).payload == b"answer"


async def test_silent_peers_are_forgotten(shared_nats: NatsServer, cluster: Cluster) -> None:
    async with kpudp_gateway(shared_nats.url, peer_timeout=0.2) as server:
        with RawDevice(server.port) as device:
            device.send(data(1))
            await cluster.next_requests(1)
            await until(lambda: server.transport.peers.counts() == (0, 0), "the peer to be forgotten")
    assert server.count("closed", "kpudp_idle") == 1
    assert server.sessions.count == 0


@pytest.mark.parametrize(
    ("settings", "accepted", "reason"),
    [
        ({}, 16, "kpudp_outstanding_requests"),
        ({"pending": 3}, 3, "kpudp_pending_requests"),
        ({"unacknowledged": 3}, 2, "kpudp_unacknowledged"),  # the third is the server's PING
    ],
)
async def test_requests_are_bounded(
    shared_nats: NatsServer, cluster: Cluster, settings: dict[str, int], accepted: int, reason: str
) -> None:
    async with kpudp_gateway(shared_nats.url, **settings) as server:
        with RawDevice(server.port) as device:
            for message_id in range(accepted + 1):
                device.send(request(message_id))
            await until(lambda: server.count("dropped", reason) == 1, "a request too many")
            requests = await cluster.next_requests(accepted)
            # A request that was not taken may be sent again, as if it had been lost.
            await cluster.answer(requests[0])
            response = await frames_of(device, Type.RESPONSE)
            device.send(encode(EPOCH, [Message(Type.ACK, response.message_id)]) + request(accepted)[2:])
            await cluster.next_requests(accepted + 1)


async def test_a_message_id_used_again_leaves_the_request_before_it_alone(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    """The window has moved on, but the request still waits: its place must not be lost with it."""
    async with kpudp_gateway(shared_nats.url) as server:
        with RawDevice(server.port) as device:
            for datagram in (request(1), data(20_001), data(40_001), request(1)):
                device.send(datagram)
            await until(lambda: server.count("dropped", "kpudp_message_id_in_use") == 1, "the request")
            await cluster.answer((await cluster.next_requests(3))[0])
            response = await frames_of(device, Type.RESPONSE)
            device.send(encode(EPOCH, [Message(Type.ACK, response.message_id)]) + request(1)[2:])
            # Now it is free, and no place was lost but that of the PING for this one.
            await cluster.next_requests(4)
            assert server.transport.unacknowledged() == 2
            assert server.pending.count() == 1


async def test_a_refusal_is_not_remembered_for_a_later_message_of_the_same_id(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    async with kpudp_gateway(shared_nats.url) as server:
        with RawDevice(server.port) as device:
            device.send(encode(EPOCH, [Message(Type.CONFIRMED_DATA, 1, path="elsewhere")]))
            assert (await frames_of(device, Type.RESET)).status == 404
            for datagram in (data(20_001), data(40_001)):
                device.send(datagram)
            device.send(encode(EPOCH, [Message(Type.CONFIRMED_DATA, 1, path=PATH)]))
            assert (await frames_of(device, Type.ACK)).message_id == 1


async def test_a_refusal_too_many_is_forgotten_and_nothing_else_is(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    """A message that has left the window shares its bit with a newer one, whose duplicate must have no effect."""
    window, refused_max = 1024, 64
    async with kpudp_gateway(shared_nats.url) as server:
        with RawDevice(server.port) as device:
            await prove(device, "kp1/app_v1/dcx/tok")
            for message_id in range(refused_max):
                device.send(encode(EPOCH, [Message(Type.CONFIRMED_DATA, message_id, path="elsewhere")]))
                assert (await frames_of(device, Type.RESET)).message_id == message_id
            device.send(data(window))  # in the window in place of the first refused
            device.send(encode(EPOCH, [Message(Type.CONFIRMED_DATA, window + 1, path="elsewhere")]))
            assert (await frames_of(device, Type.RESET)).message_id == window + 1
            device.send(data(window))
            await until(
                lambda: server.count("dropped", "kpudp_duplicate") == 1, "the duplicate to be noticed"
            )
            assert len(cluster.requests) == 1


async def test_pushes_to_a_peer_are_bounded(shared_nats: NatsServer, cluster: Cluster) -> None:
    async with kpudp_gateway(shared_nats.url) as server:
        with RawDevice(server.port) as device:
            await prove(device, "kp1/app_v1/dcx/tok")
            await until(lambda: "tok" in server.presence.present, "the proof")
            for _ in range(17):
                await cluster.push("tok", b"config")
            await until(lambda: server.count("dropped", "kpudp_outstanding_pushes") == 1, "a push too many")
            assert server.transport.unacknowledged() == 16


async def test_a_device_that_is_gone_is_given_up(shared_nats: NatsServer, cluster: Cluster) -> None:
    async with kpudp_gateway(shared_nats.url, ack_timeout=0.1) as server:
        with RawDevice(server.port) as device:
            await prove(device, "kp1/app_v1/dcx/gone")
            await until(lambda: "gone" in server.presence.present, "the proof")
            await cluster.push("gone", b"config")
            await until(lambda: server.count("closed", "kpudp_unreachable") == 1, "the peer to be given up")
            pushes = [f for d in device.drain() for f in decode(d)[1] if f.type == Type.PUSH]
    assert len(pushes) == TRANSMISSIONS
    assert len(set(pushes)) == 1
    assert "gone" not in server.presence.present
    assert server.transport.unacknowledged() == 0


async def test_an_address_that_is_not_proved_gets_three_times_what_it_sends(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    async with kpudp_gateway(shared_nats.url, ack_timeout=0.1) as server:
        with RawDevice(server.port) as device:
            device.send(request(1))
            await cluster.answer(await cluster.request(), b"x" * 1000)
            ping = await frames_of(device, Type.PING)
            # Provoke it with what is small and has answers: duplicates, malformed frames, pings.
            for count in range(30):
                for datagram in (
                    request(1),
                    b"\xb1\x01\x02\x10\x00\x00",
                    encode(EPOCH, [Message(Type.PING, count)]),
                ):
                    device.send(datagram)
                    await asyncio.sleep(0.005)
                device.drain()
                assert device.received <= AMPLIFICATION_MAX * device.sent
            assert server.count("dropped", "kpudp_amplification") > 0
            device.send(encode(EPOCH, [Message(Type.PONG, ping.message_id, payload=ping.payload)]))
            assert (await frames_of(device, Type.RESPONSE)).payload == b"x" * 1000


async def test_a_message_that_cannot_be_taken_is_met_with_silence_and_sent_again(
    nats_server: NatsServer,
) -> None:
    async with kpudp_gateway(nats_server.url, max_pending_bytes=2000) as server:
        with RawDevice(server.port) as device:
            async with Cluster(nats_server.url, "dcx") as cluster:
                device.send(encode(EPOCH, [Message(Type.CONFIRMED_DATA, 0, alias=1, path=PATH)]))
                await frames_of(device, Type.ACK)
                await cluster.request()
            nats_server.kill()
            await until(lambda: not server.link.ready, "the link to be lost")
            for message_id in range(1, 31):
                device.send(
                    encode(EPOCH, [Message(Type.CONFIRMED_DATA, message_id, alias=1, payload=bytes(100))])
                )
            await until(lambda: server.count("dropped", "kpudp_busy") > 0, "the bound to be reached")
            nats_server.start()
            await until(lambda: server.link.ready, "the link to be back")
            acknowledged: set[int] = set()
            while len(acknowledged) < 30:
                for message_id in set(range(1, 31)) - acknowledged:
                    device.send(
                        encode(EPOCH, [Message(Type.CONFIRMED_DATA, message_id, alias=1, payload=bytes(100))])
                    )
                await asyncio.sleep(0.1)
                for datagram in device.drain():
                    acknowledged |= {
                        frame.message_id
                        for frame in decode(datagram)[1]
                        if (frame.type == Type.RESET and frame.status == 503) or frame.type == Type.ACK
                    }
