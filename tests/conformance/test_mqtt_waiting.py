"""Packets that come while the gateway waits for the identity of a token or the authentication of a client.

The first messages of a token wait in order, others pass; what is kept is bounded, and beyond it that client is no
longer read. MQTT 3.1.1 section 3.1.4 for packets before CONNACK.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Connack, Connect, Disconnect, Pingreq, Pingresp, Puback, Publish, Will
from kaa_gateway.app.transports import mqtt as mqtt_module
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity import service as service_module
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.mqtt.server import MqttServer

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.held_worker import HeldWorker, held_worker, run_on_uvloop
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.nats import NatsServer

WAITING_MESSAGES = 5
LIMITS = {"kaa": {"kpc": {"limits": {"waiting-messages": WAITING_MESSAGES, "waiting-bytes": 2048}}}}

Scenario = Callable[[HeldWorker, Cluster], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture
def run(shared_nats: NatsServer, tmp_path: Path) -> Run:
    """Runs a scenario on a worker and a cluster with dcx."""

    async def main(scenario: Scenario) -> None:
        async with (
            Cluster(shared_nats.url, "dcx") as cluster,
            held_worker(tmp_path, shared_nats.url, LIMITS) as worker,
        ):
            await asyncio.wait_for(scenario(worker, cluster), 60)

    return lambda scenario: run_on_uvloop(main(scenario))


def publish(token: str, payload: bytes, qos: int = 0, packet_id: int = 0) -> Publish:
    return Publish(f"kp1/app_v1/dcx/{token}/json", payload, qos, packet_id)


def taken(worker: HeldWorker) -> int:
    """PUBLISH packets that the worker has taken from devices."""
    return (
        worker.counters.by_protocol()["messages_in"]["mqtt"] + worker.uplink.identification.waiting_messages
    )


async def payloads(cluster: Cluster, count: int) -> list[bytes]:
    return [request.fields["payload"] for request in await cluster.next_requests(count)]


# A token


def test_messages_of_a_token_wait_in_order_and_others_pass(run: Run) -> None:
    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        async with mqtt_client(worker.ports["mqtt"]) as device:
            await device.send(
                publish("hold", b"1"),
                publish("quick", b"2"),
                publish("hold", b"3"),
                publish("quick", b"4", 1, 1),
            )
            assert await device.expect(Puback) == Puback(1)
            assert await payloads(cluster, 2) == [b"2", b"4"]
            worker.provider.release()
            assert await payloads(cluster, 4) == [b"2", b"4", b"1", b"3"]
            assert worker.provider.asked == ["hold", "quick"]

    run(scenario)


def test_one_request_for_a_token_that_many_connections_use(run: Run) -> None:
    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        port = worker.ports["mqtt"]
        async with mqtt_client(port) as one, mqtt_client(port) as other, mqtt_client(port) as third:
            await one.send(publish("hold", b"one"))
            await other.send(publish("hold", b"other"))
            await third.subscribe("kp1/app_v1/dcx/hold/#")
            await until(lambda: taken(worker) == 2, "both messages")
            worker.provider.release()
            assert sorted(await payloads(cluster, 2)) == [b"one", b"other"]
            await cluster.push("hold", b"push")
            for device in (one, other, third):
                assert (await device.expect(Publish)).payload == b"push"
            assert worker.provider.asked == ["hold"]

    run(scenario)


@pytest.mark.parametrize("size", [0, 500], ids=["count", "bytes"])
def test_a_client_beyond_what_may_wait_is_no_longer_read(run: Run, size: int) -> None:
    """Messages that wait are not lost, and others are served meanwhile."""

    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        port = worker.ports["mqtt"]
        held = 3 if size else WAITING_MESSAGES
        async with mqtt_client(port, keep_alive=1) as device, mqtt_client(port) as other:
            messages = [publish("hold", (b"%d " % n).ljust(size, b"x"), 1, n) for n in range(1, 31)]
            await device.send(*messages, publish("quick", b"quick", 1, 99), Pingreq())
            await until(lambda: taken(worker) >= held, "the first messages")
            await other.send(publish("other", b"other", 1, 1))
            assert await other.expect(Puback) == Puback(1)
            assert await other.until_pingresp() == []
            assert taken(worker) == held + 1
            if not size:
                # Longer than the keep-alive: a client that is not read is not silent.
                await asyncio.sleep(3)
            worker.provider.release()
            received = [await device.receive() for _ in range(32)]
            received.remove(Pingresp())
            assert received == [*(Puback(n) for n in range(1, 31)), Puback(99)]
            expected = [b"other", *(message.payload for message in messages), b"quick"]
            assert await payloads(cluster, 32) == expected

    run(scenario)


@pytest.mark.parametrize(
    ("token", "status", "phrase"), [("hold-refused", 401, "Unauthorized"), ("hold-broken", 503, None)]
)
def test_a_refusal_answers_all_that_waited(run: Run, token: str, status: int, phrase: str | None) -> None:
    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        async with mqtt_client(worker.ports["mqtt"]) as device:
            await device.send(*(publish(token, b"", 1, n) for n in (1, 2, 3)), publish(token, b""))
            await until(lambda: taken(worker) == 4, "the messages")
            worker.provider.release()
            received = [await device.receive() for _ in range(6)]
            assert [packet for packet in received if isinstance(packet, Puback)] == [
                Puback(1),
                Puback(2),
                Puback(3),
            ]
            errors = [json.loads(packet.payload) for packet in received if isinstance(packet, Publish)]
            assert [error["statusCode"] for error in errors] == [status] * 3
            if phrase:
                assert errors[0]["reasonPhrase"] == phrase
            assert await device.until_pingresp() == []
            assert not cluster.requests

    run(scenario)


@pytest.mark.parametrize("disconnect", [True, False])
def test_what_waits_is_forwarded_when_its_client_has_gone(run: Run, disconnect: bool) -> None:
    """The will follows the messages, if there is one, and nobody becomes `connected` by them."""

    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        will = Will("kp1/app_v1/dcx/hold/will", b"will")
        async with mqtt_client(worker.ports["mqtt"], will=will) as device:
            await device.send(publish("hold", b"first"), publish("hold", b"last"))
            await until(lambda: taken(worker) == 2, "the messages")
            await (device.send(Disconnect()) if disconnect else device.abort())
            await until(lambda: worker.sessions.count == 0, "the session to end")
        worker.provider.release()
        expected = [b"first", b"last", *([] if disconnect else [b"will"])]
        assert await payloads(cluster, len(expected)) == expected
        async with mqtt_client(worker.ports["mqtt"]) as device:
            await device.subscribe("kp1/app_v1/dcx/later/#")
            await cluster.connectivity("connected", "later")
        assert cluster.events[0][1]["endpoints"] == {"later": "app_v1"}

    run(scenario)


def test_identifications_of_a_client_are_bounded(run: Run) -> None:
    """SUBSCRIBE is granted and costs nothing more; the first tokens are identified."""

    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        async with mqtt_client(worker.ports["mqtt"]) as device:
            filters = [f"kp1/app_v1/dcx/hold-{n}/#" for n in range(WAITING_MESSAGES + 3)]
            assert await device.subscribe(*filters) == (0,) * len(filters)
            await until(lambda: len(worker.provider.asked) == WAITING_MESSAGES, "the first tokens")
            assert worker.counters.by_reason()["dropped", "too_many_identifications"] == 3
            worker.provider.release()
            for n in range(WAITING_MESSAGES):
                await cluster.connectivity("connected", f"hold-{n}")
            assert len(worker.provider.asked) == WAITING_MESSAGES

    run(scenario)


# NATS


def test_a_will_is_dropped_and_counted_when_nats_is_away_and_no_more_may_wait(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async def main() -> None:
        pending = {"kaa": {"kpc": {"nats": {"max-pending-bytes": "64KiB"}}}}
        async with held_worker(tmp_path, nats_server.url, pending) as worker:
            port = worker.ports["mqtt"]
            reasons = worker.counters.by_reason
            will = Will("kp1/app_v1/dcx/quick/will", b"")
            async with mqtt_client(port) as device, mqtt_client(port, will=will) as other:
                nats_server.kill()
                await device.send(*(publish("quick", bytes(10_000), 1, n) for n in range(1, 11)))
                await until(lambda: ("paused", "nats_backlog") in reasons(), "the backlog to be full")
                await other.abort()
                await until(lambda: reasons().get(("dropped", "will")) == 1, "the will to be dropped")
                nats_server.start()
                # What was taken before is acknowledged now, and what was not read until then.
                # An error for each comes too: nobody serves dcx.
                received = [await device.receive() for _ in range(20)]
                assert [packet for packet in received if isinstance(packet, Puback)] == [
                    Puback(n) for n in range(1, 11)
                ]

    run_on_uvloop(main())


# A client


class Gate:
    """Authentication of clients that a test decides: a user name is the principal."""

    def __init__(self) -> None:
        self.open = True
        self.waiting: list[Callable[[], None]] = []

    def authenticate(self, presentation: Presentation) -> asyncio.Future[Client]:
        future: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        user_name = presentation.user_name

        def decide() -> None:
            if user_name == "intruder":
                future.set_exception(IdentityError(401, "credentials_rejected"))
            elif user_name == "unlucky":
                future.set_exception(IdentityError(503, "credentials_timeout"))
            else:
                future.set_result(Client(user_name or ""))

        if self.open:
            decide()
        else:
            self.waiting.append(decide)
        return future


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(service_module, "AdmitAll", lambda _: gate)
    # The configuration names no provider, so the worker would not ask.
    monkeypatch.setattr(
        mqtt_module,
        "MqttServer",
        lambda *args, **settings: MqttServer(*args, **settings | {"client_authentication": "required"}),
    )
    return gate


def test_packets_before_connack_wait_unread_beyond_the_first(run: Run, gate: Gate) -> None:
    """Packets are handled in order after CONNACK; a flood is held back in the sender's socket (3.1.4)."""

    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        gate.open = False
        async with mqtt_peer(worker.ports["mqtt"]) as device:
            messages = [publish("quick", (b"%d " % n).ljust(20_000), 1, n) for n in range(1, 201)]
            flood = asyncio.create_task(device.send(Connect("flood"), *messages, Pingreq()))
            await until(lambda: bool(gate.waiting), "the CONNECT")
            assert taken(worker) == 0
            assert worker.sessions.count == 0
            gate.waiting.pop()()
            assert await device.expect(Connack) == Connack(False, 0)
            received = [await device.receive() for _ in range(201)]
            assert [packet for packet in received if packet != Pingresp()] == [
                Puback(n) for n in range(1, 201)
            ]
            assert await payloads(cluster, 200) == [message.payload for message in messages]
            await flood

    run(scenario)


@pytest.mark.parametrize(("user_name", "return_code"), [("intruder", 5), ("unlucky", 3)])
def test_a_refused_client_is_told_and_what_it_sent_is_forgotten(
    run: Run, gate: Gate, user_name: str, return_code: int
) -> None:
    """A refused client gets its return code in CONNACK (3.2.2.3)."""

    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        async with mqtt_peer(worker.ports["mqtt"]) as device:
            will = Will("kp1/app_v1/dcx/quick/will", b"")
            connect = Connect("client", user_name=user_name, password=b"x", will=will)
            await device.send(connect, publish("quick", b"", 1, 1))
            assert await device.until_closed() == [Connack(False, return_code)]
        await until(lambda: worker.counters.by_protocol()["connections_closed"]["mqtt"] == 1, "its end")
        assert taken(worker) == 0
        assert worker.provider.asked == []

    run(scenario)


def test_a_client_that_goes_before_it_is_admitted_does_no_harm(run: Run, gate: Gate) -> None:
    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        gate.open = False
        async with mqtt_peer(worker.ports["mqtt"]) as device:
            await device.send(Connect("client", clean_session=False))
            await until(lambda: bool(gate.waiting), "the CONNECT")
            await device.abort()
        gate.waiting.pop()()
        gate.open = True
        async with mqtt_peer(worker.ports["mqtt"]) as device:
            connack = await device.connect("client", clean_session=False)
            assert connack.return_code == 0
        await until(lambda: worker.counters.by_protocol()["connections_closed"]["mqtt"] == 2, "both to end")

    run(scenario)


@pytest.mark.parametrize("clean", [True, False])
def test_take_over_is_scoped_to_the_principal(run: Run, gate: Gate, clean: bool) -> None:
    """Whole fleets share client identifiers, so only the same credentials take a session over."""

    async def connect(device: MqttPeer, user_name: str) -> Any:
        return await device.connect("ESP8266Client", clean_session=clean, user_name=user_name)

    async def scenario(worker: HeldWorker, cluster: Cluster) -> None:
        port = worker.ports["mqtt"]
        async with mqtt_peer(port) as alice, mqtt_peer(port) as bob, mqtt_peer(port) as alice_again:
            assert await connect(alice, "alice") == Connack(False, 0)
            assert await connect(bob, "bob") == Connack(False, 0)
            assert await alice.until_pingresp() == []
            assert await connect(alice_again, "alice") == Connack(not clean, 0)
            assert await alice.until_closed() == []
            assert await bob.until_pingresp() == await alice_again.until_pingresp() == []
        assert worker.counters.by_reason()["closed", "mqtt_taken_over"] == 1

    run(scenario)
