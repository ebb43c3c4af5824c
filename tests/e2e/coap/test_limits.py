"""Bounds against hostile peers: tables at their bound, the rate of requests, and amplification."""

import asyncio
from typing import Any

from kaa_gateway.wire.coap import Message

from tests.support.cluster import Cluster
from tests.support.coap import (
    ACK,
    BLOCK2,
    ECHO,
    GET,
    OBSERVE,
    CoapClient,
    block,
    coap_server,
    option,
)
from tests.support.esp import until
from tests.support.nats import NatsServer

PATH = "kp1/app_v1/dcx/token/json"
FOREVER = 3600.0
PEER_IDLE = 247
UNAVAILABLE, UNAUTHORIZED = 0xA3, 0x81


async def test_the_longest_idle_peer_goes(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with (
        coap_server(shared_nats.url, peers=2, piggyback_delay=FOREVER) as server,
        CoapClient(server.port) as busy,
        CoapClient(server.port) as idle,
        CoapClient(server.port) as newcomer,
        CoapClient(server.port) as refused,
    ):
        busy.send(busy.request(PATH))
        request = await cluster.request()
        await idle.post("other")
        await newcomer.post("other")
        assert server.tables["peers"] == 2
        assert server.count("closed", "coap_peers_full") == 1
        newcomer.send(newcomer.request(PATH))
        await cluster.next_requests(2)
        refused.send(refused.request(PATH))
        assert await refused.hears_nothing()
        assert server.count("refused", "coap_peers_full") == 1
        await cluster.answer(request, b"kept")
        assert (await busy.receive()).payload == b"kept"


async def test_silent_peers_are_forgotten(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with coap_server(shared_nats.url) as server, CoapClient(server.port) as client:
        await client.post("other")
        assert server.tables["peers"] == server.tables["answered"] == 1
        await server.put_forward(PEER_IDLE + 1)
        assert server.tables["peers"] == server.tables["answered"] == 0


async def test_exchanges_are_bounded(shared_nats: NatsServer) -> None:
    """Of a peer, and of all: the longest answered goes, and its duplicate is a request again."""
    async with (
        coap_server(shared_nats.url, exchanges_per_peer=3, exchanges=5) as server,
        CoapClient(server.port) as first,
        CoapClient(server.port) as second,
    ):
        requests = [first.request("other") for _ in range(4)]
        for request in requests:
            await first.ask(request)
        assert server.tables["answered"] == 3
        await first.ask(requests[3])
        assert server.count("dropped", "coap_duplicate") == 1
        await first.ask(requests[0])
        assert server.count("dropped", "coap_duplicate") == 1
        for _ in range(3):
            await second.post("other")
        assert server.tables["answered"] == 5


async def test_each_of_many_duplicates_finds_its_answer(shared_nats: NatsServer) -> None:
    """Short answers and long ones, also after the table has grown."""
    async with coap_server(shared_nats.url) as server, CoapClient(server.port) as client:
        requests = [client.request(path) for _ in range(80) for path in ("other", ".well-known/core")]
        answers = [await client.ask(request) for request in requests]
        assert [await client.ask(request) for request in requests] == answers
        assert server.count("dropped", "coap_duplicate") == len(requests)
        assert server.tables["answered"] == len(requests)


async def test_unanswered_requests_are_bounded(cluster: Cluster, shared_nats: NatsServer) -> None:
    settings: dict[str, Any] = {"outstanding_per_peer": 2, "pending_requests": 3, "piggyback_delay": FOREVER}
    async with (
        coap_server(shared_nats.url, **settings) as server,
        CoapClient(server.port) as first,
        CoapClient(server.port) as second,
    ):
        for _ in range(2):
            first.send(first.request(PATH))
        response = await first.post(PATH)
        assert (response.code, option(response, 14)) == (UNAVAILABLE, b"\x01")
        second.send(second.request(PATH))
        assert (await second.post(PATH)).code == UNAVAILABLE
        for request in await cluster.next_requests(3):
            await cluster.answer(request)
        await until(lambda: server.tables["answered"] == 5, "the answers")
        assert server.core.pending.count() == 0
        second.inbox.clear()
        second.send(second.request(PATH))
        await cluster.next_requests(1, after=3)


async def test_unacknowledged_responses_count_as_outstanding(
    cluster: Cluster, shared_nats: NatsServer
) -> None:
    settings: dict[str, Any] = {"outstanding_per_peer": 2, "piggyback_delay": 0.0}
    async with coap_server(shared_nats.url, **settings) as server, CoapClient(server.port) as client:
        for _ in range(2):
            await client.post(PATH)
        for request in await cluster.next_requests(2):
            await cluster.answer(request)
        await until(lambda: server.tables["transmissions"] == 2, "the responses")
        client.inbox.clear()
        assert (await client.post(PATH)).code == UNAVAILABLE


async def test_rate_of_requests(shared_nats: NatsServer) -> None:
    async with (
        coap_server(shared_nats.url, requests_per_second=5.0) as server,
        CoapClient(server.port) as client,
        CoapClient(server.port) as other,
    ):
        server.clock.time = lambda: 1000.0 + server.clock.shift  # type: ignore[method-assign]
        for _ in range(8):
            client.send(client.request("other"))
        await until(lambda: server.count("dropped", "coap_rate_limit") == 3, "the limit")
        await until(lambda: len(client.inbox) == 5, "the answers")
        assert (await other.post("other")).code == 0x84
        client.inbox.clear()
        server.clock.shift = 0.5
        for _ in range(4):
            client.send(client.request("other"))
        await until(lambda: server.count("dropped", "coap_rate_limit") == 5, "the limit again")


async def test_an_unproved_peer_is_sent_three_times_its_bytes(
    cluster: Cluster, shared_nats: NatsServer
) -> None:
    """However large the answers, whatever is asked, and with all retransmissions."""
    settings: dict[str, Any] = {"piggyback_delay": 0.01, "ack_timeout": 0.02}
    async with coap_server(shared_nats.url, **settings) as server, CoapClient(server.port) as client:
        for number in range(5):
            client.send(client.request(PATH, token=b""))
            (request,) = await cluster.next_requests(1, after=number)
            await cluster.answer(request, bytes(2000))
        client.send(client.request(".well-known/core", method=GET, token=b""))
        client.send(client.request("x", token=b""))
        client.send(client.request(PATH, b"", (OBSERVE, b""), method=GET))
        (request,) = await cluster.next_requests(1, after=5)
        await cluster.answer(request, bytes(100))
        for _ in range(20):
            await cluster.push("token", bytes(1000))
        await asyncio.sleep(2)  # as long as retransmissions take; some messages are held for good
        assert client.bytes_received <= 3 * client.bytes_sent
        assert len(client.inbox) > 5


async def test_a_large_response_begins_small_and_with_an_echo(
    cluster: Cluster, shared_nats: NatsServer
) -> None:
    async with (
        coap_server(shared_nats.url, piggyback_delay=FOREVER) as server,
        CoapClient(server.port) as client,
        CoapClient(server.port) as thief,
    ):
        client.send(client.request(PATH))
        await cluster.answer(await cluster.request(), bytes(2000))
        first = await client.receive()
        assert 16 <= len(first.payload) <= 64
        assert option(first, BLOCK2) == block(0, True, (len(first.payload) // 16).bit_length() - 1)
        echo = option(first, ECHO)
        assert echo is not None
        following = await client.post(PATH, b"", (BLOCK2, block(1, False, 5)), (ECHO, echo))
        assert (len(following.payload), option(following, BLOCK2)) == (512, block(1, True, 5))
        # The value proves the address that it was sent to, and no other.
        thief.send(thief.request(PATH, b"", (ECHO, echo)))
        (request,) = await cluster.next_requests(1, after=1)
        await cluster.answer(request, bytes(2000))
        assert len((await thief.receive()).payload) < 200


async def test_an_acknowledged_response_proves_the_address(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with coap_server(shared_nats.url, piggyback_delay=0.0) as server, CoapClient(server.port) as client:
        for number, size in enumerate((10, 1000)):
            await client.post(PATH)
            (request,) = await cluster.next_requests(1, after=number)
            await cluster.answer(request, bytes(size))
            response = await client.receive()
            client.acknowledge(response)
            await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
        assert len(response.payload) == 1000


async def test_echo_is_asked_of_everybody_if_configured(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with (
        coap_server(shared_nats.url, require_echo=True, piggyback_delay=FOREVER) as server,
        CoapClient(server.port) as client,
    ):
        challenge = await client.post(PATH, b"once")
        assert (challenge.type, challenge.code) == (ACK, UNAUTHORIZED)
        echo = option(challenge, ECHO)
        assert echo is not None
        for wrong in (bytes(12), echo[:-1], echo[:-1] + bytes([echo[-1] ^ 1])):
            assert (await client.post(PATH, b"once", (ECHO, wrong))).code == UNAUTHORIZED
        assert not cluster.requests
        client.send(client.request(PATH, b"once", (ECHO, echo)))
        await cluster.answer(await cluster.request())
        assert (await client.receive()).code == 0x44
        client.send(client.request(PATH, b"again"))
        await cluster.next_requests(1, after=1)
        await server.put_forward(3601)
        assert (await client.post(PATH, b"once", (ECHO, echo))).code == UNAUTHORIZED


async def test_a_reset_message_is_no_proof(cluster: Cluster, shared_nats: NatsServer) -> None:
    async with coap_server(shared_nats.url, piggyback_delay=0.0) as server, CoapClient(server.port) as client:
        await client.post(PATH)
        await cluster.answer(await cluster.request())
        client.send(Message(3, 0, (await client.receive()).message_id))
        await until(lambda: server.tables["transmissions"] == 0, "the reset")
        await client.post(PATH)
        (request,) = await cluster.next_requests(1, after=1)
        await cluster.answer(request, bytes(1000))
        assert len((await client.receive()).payload) < 200


async def test_a_separate_response_waits_for_room(cluster: Cluster, shared_nats: NatsServer) -> None:
    """It is confirmable: it is kept until so many bytes may be sent to its unverified peer."""
    async with coap_server(shared_nats.url, piggyback_delay=0.0) as server, CoapClient(server.port) as client:
        requests = [client.request(PATH, token=b"%d" % number) for number in range(12)]
        client.send(requests[0])
        first = await cluster.request()
        await until(lambda: len(client.inbox) == 1, "the acknowledgement")
        for _ in range(40):
            client.send(requests[0])  # each duplicate is acknowledged
        await cluster.answer(first, bytes(30))
        response = await client.receive(lambda message: message.code != 0)
        client.inbox.clear()
        assert len(response.payload) in (16, 30)
        client.acknowledge(response)
        await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")


async def test_retransmission_goes_on_when_there_is_room(cluster: Cluster, shared_nats: NatsServer) -> None:
    settings: dict[str, Any] = {"piggyback_delay": 0.0, "ack_timeout": 0.05}
    async with coap_server(shared_nats.url, **settings) as server, CoapClient(server.port) as client:
        await client.post(PATH)
        await cluster.answer(await cluster.request(), bytes(500))
        await asyncio.sleep(3)
        copies = len(client.inbox)
        assert copies >= 2
        assert client.bytes_received <= 3 * client.bytes_sent
        assert server.tables["transmissions"] == 1
        assert server.count("dropped", "coap_unacknowledged") == 0
        client.send(client.request("x" * 200))
        await until(lambda: len(client.inbox) == copies + 2, "an error and another copy")
        client.acknowledge(client.inbox[0])
        await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")


async def test_a_held_response_is_given_up_in_the_end(cluster: Cluster, shared_nats: NatsServer) -> None:
    settings: dict[str, Any] = {"piggyback_delay": 0.0, "ack_timeout": 0.05}
    async with coap_server(shared_nats.url, **settings) as server, CoapClient(server.port) as client:
        await client.post(PATH)
        await cluster.answer(await cluster.request(), bytes(500))
        await asyncio.sleep(3)
        assert server.tables["transmissions"] == 1
        await server.put_forward(250)
        await until(lambda: server.tables["transmissions"] == 0, "the end of it")
        assert server.count("dropped", "coap_unacknowledged") == 1
