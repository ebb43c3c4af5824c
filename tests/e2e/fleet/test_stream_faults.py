"""Faults of the stream of sessions that an operator meets, with real nats-servers: the log, and what heals."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from kaa_bench.mqtt_packets import Connack, Disconnect
from nats.js import JetStreamContext

from tests.support.certificates import Authority, nats_tls_config
from tests.support.esp import until
from tests.support.gateway import GatewayProcess, merged
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.nats import NatsServer
from tests.support.nats_cluster import TIMEOUT_S, NatsCluster

STREAM = "kpc-sessions"
NEW = Connack(False, 0)
RESUMED = Connack(True, 0)
LONG_S = 60.0
DURABLE = {"kaa": {"kpc": {"transports": {"mqtt": {"sessions": "durable", "takeover-timeout": 2}}}}}
NOT_STORED = "sessions are not stored, trying on"
NOT_USABLE = "the stream of sessions cannot be used, trying on"


@contextmanager
def gateway_at(url: str, **durable: Any) -> Iterator[GatewayProcess]:
    """A gateway with durable sessions that ends without a traceback."""
    changes = merged(DURABLE, {"kaa": {"kpc": {"durable": durable}}})
    with GatewayProcess(url, changes) as gateway:
        yield gateway
        assert gateway.running
        assert "Traceback" not in gateway.log, gateway.log


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def come_and_go(gateway: GatewayProcess, client_id: str, expected: Connack = NEW) -> None:
    """A client with a persistent session."""
    async with mqtt_peer(gateway.mqtt_port) as peer:
        assert await peer.connect(client_id, clean_session=False) == expected
        await peer.subscribe("a/" + "b" * 1000)
        await peer.send(Disconnect())
        assert await peer.until_closed() == []


async def stored(gateway: GatewayProcess, timeout_s: float = LONG_S) -> None:
    await until(lambda: gateway.count("session_writes_pending") == 0, "writes", timeout_s)


def lines(gateway: GatewayProcess, event: str) -> list[str]:
    return [line for line in gateway.log.splitlines() if event in line]


async def logged(gateway: GatewayProcess, event: str, *words: str, timeout_s: float = LONG_S) -> None:
    """Return when a line of the log has the event, the name of the stream and the words."""
    await until(
        lambda: any(all(word in line for word in (STREAM, *words)) for line in lines(gateway, event)),
        f"{event}: {words}",
        timeout_s,
    )


async def test_a_deleted_stream_is_made_again_with_all_sessions() -> None:
    """Also that of a client which does nothing meanwhile."""
    with NatsServer(jetstream=True) as server, gateway_at(server.url) as gateway:
        await come_and_go(gateway, "absent")
        await stored(gateway)
        async with jetstream(server.url) as context:
            await context.delete_stream(STREAM)
            await come_and_go(gateway, "other")
            await logged(gateway, "the stream has lost its sessions, writing all again")
            await stored(gateway)
            assert (await context.stream_info(STREAM)).state.messages == 2
        gateway.kill()
        gateway.start()
        await come_and_go(gateway, "absent", RESUMED)


async def test_a_stream_without_room_takes_sessions_when_it_has_some() -> None:
    with NatsServer(jetstream=True) as server, gateway_at(server.url, **{"max-bytes": "8KiB"}) as gateway:
        for number in range(10):
            await come_and_go(gateway, f"client-{number}")
        await logged(gateway, NOT_STORED, "maximum bytes exceeded")
        assert gateway.count("session_writes_pending") > 0
        async with jetstream(server.url) as context:
            config = (await context.stream_info(STREAM)).config
            await context.update_stream(config.evolve(max_bytes=1024 * 1024))
            await stored(gateway)
            await logged(gateway, "sessions are stored again")
            assert (await context.stream_info(STREAM)).state.messages == 10
        assert len([line for line in lines(gateway, NOT_STORED) if "maximum bytes" in line]) == 1
        gateway.kill()
        gateway.start()
        await come_and_go(gateway, "client-9", RESUMED)


def limited(size: str) -> str:
    """An account with so much room for streams."""
    return (
        f"accounts {{ KAA: {{ users: [{{user: kaa, password: kaa}}], jetstream: {{ max_file: {size} }} }} }}"
    )


async def test_an_account_without_room_for_the_stream() -> None:
    """It cannot be made: clients are admitted all the same, and stored when the operator raises the limit."""
    with (
        NatsServer(jetstream=True, config=limited("1MB")) as server,
        gateway_at(server.url.replace("//", "//kaa:kaa@"), **{"max-bytes": "2MiB"}) as gateway,
    ):
        await logged(gateway, NOT_USABLE, "insufficient storage resources available")
        await come_and_go(gateway, "client")
        await logged(gateway, NOT_STORED, "the stream is not there")
        server.reload(limited("16MB"))
        await logged(gateway, "the stream of sessions can be used again")
        await stored(gateway)
        assert len(lines(gateway, NOT_USABLE)) == 1
        gateway.kill()
        gateway.start()
        await come_and_go(gateway, "client", RESUMED)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_replicas_without_a_quorum() -> None:
    """Two of three servers die: clients are admitted, and stored when one of the two is back."""
    with NatsCluster() as cluster, gateway_at(",".join(cluster.urls), replicas=3) as gateway:
        await come_and_go(gateway, "before")
        await stored(gateway, TIMEOUT_S)
        for server in cluster.servers[1:]:
            server.kill()
        await until(lambda: gateway.count("nats_up") == 1, "NATS", LONG_S)
        async with mqtt_client(gateway.mqtt_port, "meanwhile", clean_session=False) as peer:
            await logged(gateway, NOT_STORED)
            assert await peer.until_pingresp() == []
        cluster.servers[1].start()
        await stored(gateway, TIMEOUT_S)
        await logged(gateway, "sessions are stored again", timeout_s=TIMEOUT_S)
        gateway.kill()
        gateway.start()
        for client_id in ("before", "meanwhile"):
            await come_and_go(gateway, client_id, RESUMED)


async def test_an_expired_certificate_of_nats(tmp_path: Path) -> None:
    """The log says that it has expired; with another one, what has changed meanwhile is stored."""
    authority = Authority(tmp_path)
    good = nats_tls_config(authority)
    issued = authority.issue("expired", expired=True)
    expired = good.replace("server.pem", issued.cert_file.name).replace("server.key", issued.key_file.name)
    tls = {"kaa": {"kpc": {"nats": {"tls": {"ca-file": str(authority.file)}}}}}
    with (
        NatsServer(jetstream=True, config=good) as server,
        GatewayProcess(server.url, merged(DURABLE, tls)) as gateway,
    ):
        await come_and_go(gateway, "client")
        await stored(gateway)
        server.reload(expired)
        server.restart()
        await until(lambda: "certificate has expired" in gateway.log, "the log", LONG_S)
        await come_and_go(gateway, "client", RESUMED)
        server.reload(good)
        server.restart()
        await until(lambda: gateway.count("nats_up") == 1, "NATS", LONG_S)
        await stored(gateway)
        assert "Traceback" not in gateway.log, gateway.log
        gateway.kill()
        gateway.start()
        await come_and_go(gateway, "client", RESUMED)
