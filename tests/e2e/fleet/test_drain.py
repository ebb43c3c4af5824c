"""A worker that stops gives the sessions of offline clients to others, as in a rolling restart."""

import asyncio

from kaa_bench.mqtt_packets import Connack, Disconnect, Puback, Publish
from kaa_gateway.config import Config
from kaa_gateway.fleet.offers import give_away
from msgspec.structs import replace

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.fleet import Fleet, replica_configuration
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.mqtt5.peer import mqtt5_client
from tests.support.mqtt5.properties import Property
from tests.support.nats import NatsServer
from tests.support.worker import running_worker_of

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)
STOP_S = 60.0
AWAY_S = 0.5
EXPIRY_S = 600
CLIENTS = 250
"""More than are offered at once."""


def with_time(config: Config) -> Config:
    """Return a configuration with which a worker that stops has time to give all sessions away, on a busy machine."""
    return replace(config, service=replace(config.service, graceful_shutdown=STOP_S))


async def test_a_rolling_restart_keeps_persistent_sessions(shared_nats: NatsServer) -> None:
    urls = (shared_nats.url,)
    async with (
        Cluster(shared_nats.url, "dcx") as cluster,
        running_worker_of(replica_configuration(urls, 1, {}, {})) as stays,
    ):
        async with running_worker_of(with_time(replica_configuration(urls, 0, {}, {}))) as goes:
            await Fleet([stays, goes]).settled()
            for number in range(CLIENTS):
                async with mqtt_client(goes.ports["mqtt"], f"c{number}", clean_session=False) as peer:
                    await peer.subscribe(f"kp1/app_v1/dcx/t{number}/#", qos=1)
                    await peer.send(Disconnect())
                    assert await peer.until_closed() == []
            await until(lambda: len(goes.sessions.endpoints) == CLIENTS, "all endpoints")
            await cluster.push("t7", b"kept")
            await asyncio.sleep(0.1)
        assert stays.directory.transfers.sessions["in"] == CLIENTS
        for number in (0, 7, CLIENTS - 1):
            async with mqtt_peer(stays.ports["mqtt"]) as peer:
                assert await peer.connect(f"c{number}", clean_session=False) == RESUMED
                if number == 7:
                    publish = await peer.expect(Publish)
                    assert publish.payload == b"kept"
                    await peer.send(Puback(publish.packet_id))
                assert await peer.until_pingresp() == []


async def test_a_client_that_comes_back_meanwhile_wins(shared_nats: NatsServer) -> None:
    """Its CONNECT is newer than the session that is offered."""
    urls = (shared_nats.url,)
    async with (
        running_worker_of(replica_configuration(urls, 1, {}, {})) as stays,
        running_worker_of(with_time(replica_configuration(urls, 0, {}, {}))) as goes,
    ):
        await Fleet([stays, goes]).settled()
        for number in range(CLIENTS):
            async with mqtt_client(goes.ports["mqtt"], f"c{number}", clean_session=False) as peer:
                await peer.send(Disconnect())
                assert await peer.until_closed() == []
        stopping = asyncio.create_task(goes.stop())
        for number in reversed(range(CLIENTS)):
            async with mqtt_peer(stays.ports["mqtt"]) as peer:
                assert await peer.connect(f"c{number}", clean_session=False) == RESUMED
        await stopping


async def test_a_session_that_is_given_away_expires_when_it_would_have(shared_nats: NatsServer) -> None:
    """Rolling restarts do not keep the session of a client that does not come back."""
    urls = (shared_nats.url,)
    properties = ((Property.SESSION_EXPIRY_INTERVAL, EXPIRY_S),)
    async with running_worker_of(replica_configuration(urls, 1, {}, {})) as stays:
        async with running_worker_of(with_time(replica_configuration(urls, 0, {}, {}))) as goes:
            workers = Fleet([stays, goes])
            await workers.settled()
            async with mqtt5_client(goes.ports["mqtt"], "c", clean_start=False, properties=properties):
                pass
            await until(lambda: workers.online() == 0, "the end of the connection")
            await asyncio.sleep(AWAY_S)
        (session,) = workers.sessions()
        assert EXPIRY_S / 2 < session.describe()["sessionExpiry"] <= EXPIRY_S - AWAY_S
        async with mqtt5_client(stays.ports["mqtt"], "c", clean_start=False, properties=properties):
            assert session.describe()["sessionExpiry"] == EXPIRY_S


async def test_the_last_worker_does_not_wait(shared_nats: NatsServer) -> None:
    async with running_worker_of(replica_configuration((shared_nats.url,), 0, {}, {})) as worker:
        async with mqtt_client(worker.ports["mqtt"], "c", clean_session=False) as peer:
            await peer.send(Disconnect())
            assert await peer.until_closed() == []
        async with asyncio.timeout(0.4):
            await give_away(worker.directory, list, asyncio.get_running_loop().time() + 60)
