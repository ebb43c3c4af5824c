"""`sessions: durable`: persistent sessions outlive a gateway that is killed. Real processes, NATS and SIGKILL."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiomqtt
import pytest
from kaa_bench.mqtt_packets import Connack, Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from kaa_gateway.bus import subjects
from kaa_gateway.bus.push_receipts import PUSH_RECEIPT, RECEIPT_HEADER, receipt_subject
from kaa_gateway.wire.esp import encode_extension_data
from nats.aio.client import Client
from nats.aio.msg import Msg
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import INSTANCE, GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.nats import HOST, NatsServer

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)
LONG_S = 60.0
MAX_PAYLOAD = 1024 * 1024
RECEIPTS = receipt_subject("test")


def settings(replica: str) -> dict[str, Any]:
    return {
        "service": {"instance": {"name": INSTANCE, "replica": {"id": replica}}},
        "kaa": {"kpc": {"transports": {"mqtt": {"sessions": "durable", "takeover-timeout": 2}}}},
    }


class Gateways:
    """Two gateways, of which tests kill one. `nats` sees the receipts of pushes."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.each = [GatewayProcess(server.url, settings(f"replica-{number}")) for number in range(2)]

    @property
    def ports(self) -> list[int]:
        return [gateway.mqtt_port for gateway in self.each]

    def start(self) -> None:
        """Start those that do not run."""
        for gateway in self.each:
            if not gateway.running:
                gateway.kill()
                gateway.start()

    async def stored(self, number: int = 0) -> None:
        """Return when a gateway has nothing to write."""
        await until(lambda: self.each[number].count("session_writes_pending") == 0, "writes", LONG_S)

    def close(self) -> None:
        for gateway in self.each:
            gateway.kill()
            log = gateway.log
            gateway.close()
            assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as found:
        yield found


@pytest.fixture(scope="module")
def gateways(server: NatsServer) -> Iterator[Gateways]:
    found = Gateways(server)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def two(gateways: Gateways) -> Gateways:
    gateways.start()
    return gateways


@pytest.fixture
async def cluster(server: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(server.url, "dcx") as found:
        yield found


@pytest.fixture
def token() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


class Pushes:
    """Pushes to one endpoint whose receipts are seen."""

    def __init__(self, nats: Client, token: str) -> None:
        self._nats = nats
        self._token = token
        self.outcomes: dict[str, list[str]] = {}

    async def receive(self, message: Msg) -> None:
        fields = PUSH_RECEIPT.decode(message.data)
        self.outcomes.setdefault(fields["correlationId"], []).append(fields["outcome"])

    async def send(self, payload: bytes) -> str:
        """Push, and return the ID under which its receipts are."""
        push_id = str(uuid.uuid4())
        datum = encode_extension_data(
            push_id, 0, 0, "app_v1", "dcx", self._token, "/json", None, payload, 200
        )
        subject = subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA)
        await self._nats.publish(subject, datum, headers={RECEIPT_HEADER: RECEIPTS})
        await self._nats.flush()
        return push_id

    async def told(self, push_id: str, outcome: str) -> None:
        await until(lambda: outcome in self.outcomes.get(push_id, []), outcome, LONG_S)


@pytest.fixture
async def pushes(cluster: Cluster, token: str) -> Pushes:
    found = Pushes(cluster.nats, token)
    await cluster.nats.subscribe(RECEIPTS, cb=found.receive)
    return found


async def subscribed(peer: MqttPeer, gateway: GatewayProcess, token: str, qos: int = 1) -> None:
    """Subscribe to the pushes of an endpoint, and return when the session speaks for it."""
    before = gateway.count("endpoints")
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", qos=qos)
    await until(lambda: gateway.count("endpoints") > before, "the endpoint", LONG_S)


async def leave(peer: MqttPeer) -> None:
    await peer.send(Disconnect())
    assert await peer.until_closed() == []


async def test_what_was_accepted_survives_the_gateway(two: Gateways, pushes: Pushes, token: str) -> None:
    """A queued push whose `accepted` was reported is delivered by another gateway, once, by its subscription."""
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await subscribed(peer, two.each[0], token)
        await leave(peer)
    ids = [await pushes.send(b"%d" % number) for number in range(3)]
    for each in ids:
        await pushes.told(each, "accepted")
    two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        for number in range(3):
            publish = await peer.expect(Publish)
            assert (publish.payload, publish.qos, publish.dup) == (b"%d" % number, 1, False)
            await peer.send(Puback(publish.packet_id))
        for each in ids:
            await pushes.told(each, "delivered")
        later = await pushes.send(b"later")
        publish = await peer.expect(Publish)
        assert publish.payload == b"later"
        await peer.send(Puback(publish.packet_id))
        await pushes.told(later, "delivered")
        assert await peer.until_pingresp() == []


async def test_unacknowledged_messages_of_both_directions(
    two: Gateways, cluster: Cluster, pushes: Pushes, token: str
) -> None:
    """What was sent and not acknowledged comes again with DUP; identifiers of QoS 2 are remembered."""
    topic = f"kp1/app_v1/dcx/{token}/json"
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await subscribed(peer, two.each[0], token, qos=2)
        await peer.send(Publish(topic, b"up", 2, 7))
        assert await peer.expect(Pubrec) == Pubrec(7)
        assert (await cluster.next_requests(1))[0].fields["payload"] == b"up"
        first = await pushes.send(b"first")
        released = await peer.expect(Publish)
        await peer.send(Pubrec(released.packet_id))
        assert await peer.expect(Pubrel) == Pubrel(released.packet_id)
        second = await pushes.send(b"second")
        unacknowledged = await peer.expect(Publish)
        assert unacknowledged.qos == 2
        await pushes.told(first, "accepted")
        await pushes.told(second, "accepted")
        await two.stored()
        two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        assert await peer.expect(Pubrel) == Pubrel(released.packet_id)
        again = await peer.expect(Publish)
        assert (again.payload, again.dup, again.packet_id) == (b"second", True, unacknowledged.packet_id)
        await peer.send(Publish(topic, b"up", 2, 7, dup=True))
        assert await peer.expect(Pubrec) == Pubrec(7)
        await peer.send(Pubrec(again.packet_id))
        assert await peer.expect(Pubrel) == Pubrel(again.packet_id)
        await peer.send(Pubcomp(released.packet_id), Pubcomp(again.packet_id))
        await pushes.told(first, "delivered")
        await pushes.told(second, "delivered")
        assert await peer.until_pingresp() == []
    assert len(cluster.requests) == 1


async def test_a_session_left_behind_is_not_revived(two: Gateways, pushes: Pushes, token: str) -> None:
    """A gateway that restarts gives no session to a client which has had a newer one meanwhile."""
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await subscribed(peer, two.each[0], token)
        await leave(peer)
    await pushes.told(await pushes.send(b"once"), "accepted")
    two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        await peer.send(Puback((await peer.expect(Publish)).packet_id))
        assert await peer.until_pingresp() == []
        await leave(peer)
    await two.stored(1)
    two.start()
    two.each[1].kill()
    async with mqtt_peer(two.ports[0]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        assert await peer.until_pingresp() == []
        await leave(peer)
    async with mqtt_peer(two.ports[0]) as peer:
        assert await peer.connect(token, clean_session=True) == NEW
        await leave(peer)
    await two.stored(0)
    two.start()
    two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == NEW


async def test_a_clean_session_discards_what_a_dead_gateway_left(two: Gateways, token: str) -> None:
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await leave(peer)
    await two.stored()
    two.each[0].kill()
    async with mqtt_client(two.ports[1], token, clean_session=True) as peer:
        await leave(peer)
    await two.stored(1)
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == NEW


async def test_expiry_is_kept(two: Gateways, token: str) -> None:
    for name, seconds in (("short", 2), ("long", 3600)):
        expiry = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        expiry.SessionExpiryInterval = seconds
        async with aiomqtt.Client(
            HOST,
            two.ports[0],
            identifier=f"{token}-{name}",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=expiry,
        ):
            pass
    await two.stored()
    two.each[0].kill()
    await asyncio.sleep(2.5)
    for name, present in (("short", NEW), ("long", RESUMED)):
        async with mqtt_peer(two.ports[1]) as peer:
            assert await peer.connect(f"{token}-{name}", clean_session=False) == present, name


async def test_a_client_of_others_finds_its_subscriptions(two: Gateways, pushes: Pushes, token: str) -> None:
    """aiomqtt, at QoS 1: what was pushed while nobody had the session is refused, not kept."""
    async with aiomqtt.Client(HOST, two.ports[0], identifier=token, clean_session=False) as client:
        before = two.each[0].count("endpoints")
        await client.subscribe(f"kp1/app_v1/dcx/{token}/#", qos=1)
        await until(lambda: two.each[0].count("endpoints") > before, "the endpoint", LONG_S)
    await pushes.told(await pushes.send(b"kept"), "accepted")
    two.each[0].kill()
    await pushes.told(await pushes.send(b"nobody"), "no-session")
    async with aiomqtt.Client(HOST, two.ports[1], identifier=token, clean_session=False) as client:
        message = await asyncio.wait_for(anext(client.messages), LONG_S)
        assert message.payload == b"kept"
        await pushes.send(b"now")
        message = await asyncio.wait_for(anext(client.messages), LONG_S)
        assert message.payload == b"now"


async def test_a_suspended_gateway_that_was_overtaken_gives_its_session_up(
    two: Gateways, pushes: Pushes, token: str
) -> None:
    """It does not answer, so the session is loaded. When it goes on, it neither delivers nor writes its own."""
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await subscribed(peer, two.each[0], token)
        await leave(peer)
    await pushes.told(await pushes.send(b"kept"), "accepted")
    before = two.each[0].count("events", "dropped", "session_left_behind")
    os.kill(two.each[0].pid, signal.SIGSTOP)
    try:
        async with mqtt_peer(two.ports[1]) as peer:
            assert await peer.connect(token, clean_session=False) == RESUMED
            await peer.send(Puback((await peer.expect(Publish)).packet_id))
            await pushes.send(b"new")
            await peer.send(Puback((await peer.expect(Publish)).packet_id))
            assert await peer.until_pingresp() == []
            await leave(peer)
    finally:
        os.kill(two.each[0].pid, signal.SIGCONT)
    await until(lambda: two.each[0].count("directory_sessions") == 0, "the end of the older one", LONG_S)
    assert two.each[0].count("events", "dropped", "session_left_behind") >= before
    await two.stored(1)
    two.each[1].kill()
    async with mqtt_peer(two.ports[0]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        assert await peer.until_pingresp() == []


async def test_a_queue_larger_than_a_message_of_nats(two: Gateways, pushes: Pushes, token: str) -> None:
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await subscribed(peer, two.each[0], token)
        await leave(peer)
    ids = [await pushes.send(b"%d" % number + bytes(150_000)) for number in range(10)]
    for each in ids:
        await pushes.told(each, "accepted")
    two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        for number in range(10):
            publish = await peer.expect(Publish)
            assert publish.payload == b"%d" % number + bytes(150_000)
            await peer.send(Puback(publish.packet_id))


async def test_nats_away_is_written_later(two: Gateways, token: str) -> None:
    """Clients are admitted while NATS is away; what they have then is stored when it is back."""
    two.server.stop()
    try:
        await until(lambda: two.each[0].count("nats_up") == 0, "the loss of NATS", LONG_S)
        async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
            await leave(peer)
    finally:
        two.server.start()
    await until(lambda: two.each[0].count("nats_up") == 1, "NATS", LONG_S)
    await two.stored()
    two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED


async def outgrow(peer: MqttPeer, two: Gateways, pushes: Pushes, token: str) -> list[int]:
    """Finish a stored message while others in flight do not fit into a message of NATS; return these."""
    before = two.each[0].count("events", "dropped", "session_state_too_large")
    await subscribed(peer, two.each[0], token)
    first = await pushes.send(b"first")
    finished = await peer.expect(Publish)
    await pushes.told(first, "accepted")
    in_flight = []
    for number in range(10):
        await pushes.send(b"%d" % number + bytes(150_000))
        in_flight.append((await peer.expect(Publish)).packet_id)
    await until(
        lambda: two.each[0].count("events", "dropped", "session_state_too_large") > before, "the end", LONG_S
    )
    await peer.send(Puback(finished.packet_id))
    await pushes.told(first, "delivered")
    await two.stored()
    return in_flight


async def test_an_older_state_does_not_come_back_when_a_session_outgrows_a_message_of_nats(
    two: Gateways, pushes: Pushes, token: str
) -> None:
    """The client gets a new session, and so nothing that it has acknowledged. The log says whose session it was."""
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await outgrow(peer, two, pushes, token)
        log = two.each[0].log
        two.each[0].kill()
    line = next(each for each in log.splitlines() if token in each)
    assert "a session is too large to be stored" in line
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == NEW
        assert await peer.until_pingresp() == []


async def test_a_session_that_fits_again_is_stored_again(two: Gateways, pushes: Pushes, token: str) -> None:
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        for packet_id in await outgrow(peer, two, pushes, token):
            await peer.send(Puback(packet_id))
        assert await peer.until_pingresp() == []
        await asyncio.sleep(0.5)
        await two.stored()
        two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        assert await peer.until_pingresp() == []
        await pushes.send(b"next")
        assert (await peer.expect(Publish)).payload == b"next"


async def test_a_push_that_is_too_large_to_be_stored_is_not_accepted(
    two: Gateways, pushes: Pushes, token: str
) -> None:
    """The one behind it is. The client gets both if its gateway goes on, and the stored one if it is killed."""
    large = bytes(MAX_PAYLOAD - 1500)
    async with mqtt_client(two.ports[0], token, clean_session=False) as peer:
        await subscribed(peer, two.each[0], token)
        await leave(peer)
    await two.stored()
    left_out = await pushes.send(large)
    await until(
        lambda: two.each[0].count("events", "dropped", "session_state_too_large") > 0, "the attempt", LONG_S
    )
    await pushes.told(await pushes.send(b"behind"), "accepted")
    assert "accepted" not in pushes.outcomes.get(left_out, [])
    async with mqtt_peer(two.ports[0]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        publish = await peer.expect(Publish)
        assert publish.payload == large
        await peer.send(Puback(publish.packet_id))
        assert (await peer.expect(Publish)).payload == b"behind"
        await pushes.told(left_out, "delivered")
        await leave(peer)
    await two.stored()
    left_out = await pushes.send(large)
    await pushes.told(await pushes.send(b"last"), "accepted")
    assert "accepted" not in pushes.outcomes.get(left_out, [])
    two.each[0].kill()
    async with mqtt_peer(two.ports[1]) as peer:
        assert await peer.connect(token, clean_session=False) == RESUMED
        for payload in (b"behind", b"last"):
            assert (await peer.expect(Publish)).payload == payload
        assert await peer.until_pingresp() == []
