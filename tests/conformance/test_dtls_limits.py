"""The limits of CoAP hold behind DTLS: of a source, of a peer, and of all peers. Handshakes are in test_dtls.py."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kaa_gateway.net.admission import Admission
from kaa_gateway.wire.coap import Message, decode, encode

from tests.support.cluster import Cluster
from tests.support.coap import CON, POST, URI_PATH, coap_server, option
from tests.support.dtls import DtlsClient
from tests.support.dtls_server import DtlsServer, ask, request
from tests.support.esp import until
from tests.support.nats import HOST, NatsServer

RATE = 20
UNAVAILABLE, CHANGED = 0xA3, 0x44
MAX_AGE = 14
FOREVER = 3600.0


@asynccontextmanager
async def dtls_server(url: str, directory: Path, **settings: Any) -> AsyncIterator[DtlsServer]:
    """A server whose clock stands still unless the test puts it forward; `settings` are those of CoAP."""
    async with coap_server(url, **settings) as coap:
        coap.clock.time = lambda: 1000.0 + coap.clock.shift  # type: ignore[method-assign]
        server = DtlsServer(coap, directory)
        server.socket.start(HOST, 0, reuse_port=False)
        yield server
        server.socket.stop()


def post(message_id: int) -> bytes:
    """A request that an extension has to answer."""
    path = tuple((URI_PATH, part) for part in (b"kp1", b"app_v1", b"dcx", b"token", b"json"))
    return encode(Message(CON, POST, message_id, b"%d" % message_id, path, b""))


async def answer_to(client: DtlsClient) -> Message:
    return decode(await client.receive())


async def test_rate_of_a_source(shared_nats: NatsServer, tmp_path: Path) -> None:
    """All records count, those of handshakes too, before anything is decrypted."""
    async with dtls_server(shared_nats.url, tmp_path) as server:
        server.socket.limit(
            Admission(
                server.coap.counters,
                half_open_max=0,
                message_rate=0,
                byte_rate=0,
                source_connections=0,
                source_message_rate=RATE,
                source_byte_rate=0,
            )
        )
        client, late = server.client(), server.client()
        await client.handshake()
        handshake = len(client.sent)
        for message_id in range(RATE):
            client.send(request(message_id))
        await until(
            lambda: server.coap.count("dropped", "source_rate") == handshake,
            "those beyond the limit to be dropped",
        )
        for message_id in range(RATE - handshake):
            assert (await answer_to(client)).message_id == message_id
        late.step()
        await until(
            lambda: server.coap.count("dropped", "source_rate") == handshake + 1, "its hello to be dropped"
        )
        assert server.tables == {"handshakes": 0, "sessions": 1}
        server.coap.clock.shift += 1
        await ask(client, RATE)
        for each in (client, late):
            each.close()


async def test_rate_of_requests(shared_nats: NatsServer, tmp_path: Path) -> None:
    async with dtls_server(shared_nats.url, tmp_path, requests_per_second=5.0) as server:
        client, other = server.client(), server.client()
        await client.handshake()
        await other.handshake()
        for message_id in range(8):
            client.send(request(message_id))
        await until(lambda: server.coap.count("dropped", "coap_rate_limit") == 3, "the limit")
        assert [(await answer_to(client)).message_id for _ in range(5)] == list(range(5))
        await ask(other)
        server.coap.clock.shift += 0.5
        for message_id in range(8, 12):
            client.send(request(message_id))
        await until(lambda: server.coap.count("dropped", "coap_rate_limit") == 5, "the limit again")
        for each in (client, other):
            each.close()


async def test_peers(shared_nats: NatsServer, tmp_path: Path) -> None:
    """One that makes room is forgotten by CoAP alone, and keeps its session."""
    async with dtls_server(shared_nats.url, tmp_path, peers=2) as server:
        clients = [server.client() for _ in range(3)]
        for client in clients:
            await client.handshake()
            await ask(client)
        assert server.coap.tables["peers"] == 2
        assert server.coap.count("closed", "coap_peers_full") == 1
        assert server.tables == {"handshakes": 0, "sessions": 3}
        await ask(clients[0], 2)
        assert server.coap.tables["peers"] == 2
        for client in clients:
            client.close()


async def test_unanswered_requests(shared_nats: NatsServer, tmp_path: Path) -> None:
    settings = {"outstanding_per_peer": 2, "pending_requests": 3, "piggyback_delay": FOREVER}
    async with (
        Cluster(shared_nats.url, "dcx") as cluster,
        dtls_server(shared_nats.url, tmp_path, **settings) as server,
    ):
        first, second = server.client(), server.client()
        for client, fitting in ((first, 2), (second, 1)):
            await client.handshake()
            for message_id in range(fitting + 1):
                client.send(post(message_id))
            refused = await answer_to(client)
            assert (refused.code, refused.message_id, option(refused, MAX_AGE)) == (
                UNAVAILABLE,
                fitting,
                b"\x01",
            )
        for request in await cluster.next_requests(3):
            await cluster.answer(request)
        assert [(await answer_to(first)).code for _ in range(2)] == [CHANGED, CHANGED]
        assert (await answer_to(second)).code == CHANGED
        assert server.coap.core.pending.count() == 0
        for each in (first, second):
            each.close()
