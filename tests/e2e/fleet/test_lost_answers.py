"""A client finds its session although the first answer is that nobody has it: NATS is in motion, or a worker stops."""

import asyncio
from typing import Any
from unittest.mock import patch

import pytest
from kaa_bench.mqtt_packets import Connack, Disconnect
from kaa_gateway.bus.connector import Connector
from kaa_gateway.fleet import messages
from kaa_gateway.fleet.messages import Claim, Nothing, Offer, State
from kaa_gateway.fleet.offers import give_away
from kaa_gateway.mqtt import session_state
from kaa_gateway.mqtt.session_state import SessionState
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.esp import until
from tests.support.fleet import fleet
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.nats import NatsServer
from tests.support.nats_cluster import NatsCluster

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)
LONG_S = 60.0
AWAY_S = 0.3
CLIENTS = 120
"""More than are offered at once."""


async def leave(peer: MqttPeer) -> None:
    await peer.send(Disconnect())
    assert await peer.until_closed() == []


async def test_a_claim_is_made_again_when_a_worker_answers_that_has_left_the_session(
    shared_nats: NatsServer,
) -> None:
    """NATS may deliver a claim to a worker whose UNSUB is on the way. It answers before the one with the session."""
    state = SessionState(
        version=1, expiry=60, level_in_flight=0, last_packet_id=0, subscriptions=[], endpoints=[], in_flight=[],
        queued=[], received=[], pushes=[],
    )  # fmt: skip
    client = Client()
    await client.connect(shared_nats.url)
    claims: list[Claim] = []

    async def answer(message: Msg) -> None:
        claim = messages.decode(message.data)
        if isinstance(claim, Claim):
            claims.append(claim)
            found = State(1, 0, 1, session_state.encode(state))
            await client.publish(
                claim.inbox, messages.encode(Nothing(unknown=True) if len(claims) == 1 else found)
            )

    try:
        await client.subscribe(messages.session_prefix("kpc") + "*", cb=answer)
        await client.flush()
        async with fleet(shared_nats.url, 1) as one:
            await until(lambda: not one.workers[0].directory.others.alone, "company", LONG_S)
            async with mqtt_peer(one.ports[0]) as peer:
                assert await peer.connect("c", clean_session=False) == RESUMED
        assert len(claims) > 1
    finally:
        await client.close()


async def test_a_session_behind_a_lost_nats_server_is_found() -> None:
    """Its worker needs a moment to connect to another server, and until then nobody seems to have it."""
    connect = Connector._connect

    async def connect_late(self: Connector, server: Any) -> None:
        await asyncio.sleep(AWAY_S)
        await connect(self, server)

    with NatsCluster() as cluster:
        async with fleet(cluster.urls[:2], 2) as two:
            for _ in range(3):
                async with mqtt_peer(two.ports[0]) as peer:
                    await peer.connect("c", clean_session=False)
                    await leave(peer)
                await asyncio.sleep(0.2)
            with patch.object(Connector, "_connect", connect_late):
                cluster.servers[0].kill()
                # Within milliseconds, but not before the first CONNECT could ask.
                await until(
                    lambda: len((two.workers[1].link.info or {})["connect_urls"]) == 2, "INFO", LONG_S
                )
                async with mqtt_peer(two.ports[1]) as peer:
                    assert await peer.connect("c", clean_session=False) == RESUMED
                async with mqtt_peer(two.ports[1]) as peer:
                    assert await peer.connect("another", clean_session=False) == NEW
            assert two.reason("dropped", "session_left_behind") == 0


@pytest.mark.parametrize("offers_before", [1, CLIENTS // 4])
async def test_a_worker_that_takes_sessions_and_stops_gives_them_away_too(
    shared_nats: NatsServer, offers_before: int
) -> None:
    """Some are on their way to it when it looks which ones it has."""
    async with fleet(shared_nats.url, 3) as three:
        first, second, third = three.workers
        for number in range(CLIENTS):
            async with mqtt_client(three.ports[0], f"c{number}", clean_session=False) as peer:
                await leave(peer)
        deadline = asyncio.get_running_loop().time() + LONG_S
        take = second.directory.on_offer
        assert take is not None
        stopping: list[asyncio.Task[None]] = []
        taken = 0

        def take_and_stop(offer: Offer) -> None:
            nonlocal taken
            take(offer)
            taken += 1
            if taken == offers_before:
                stopping.append(
                    asyncio.create_task(give_away(second.directory, second._mqtt_sessions.offers, deadline))
                )

        second.directory.on_offer = take_and_stop
        await give_away(first.directory, first._mqtt_sessions.offers, deadline)
        await stopping[0]
        await until(lambda: third.sessions.count == CLIENTS, "all sessions", LONG_S)
        assert three.count() == CLIENTS
