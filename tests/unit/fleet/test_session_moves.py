"""Sessions that move between six workers behind three NATS servers: a seed decides what arrives first."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.fleet import messages
from kaa_gateway.fleet.claims import Claims
from kaa_gateway.fleet.directory import SessionDirectory, session_name
from kaa_gateway.fleet.messages import Claim, Nothing
from kaa_gateway.identity.clients import Client, Presentation

from tests.unit.fleet.nats_double import ClusterDouble
from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, WorkerDouble, feed

INSTANCE = "kpc"
WORKERS = 6
SERVERS = 3
CLIENTS = 4
TAKEOVER_TIMEOUT_S = 5.0
CHECK_S = 0.1
MOVED_S = 60.0
"""How long a worker remembers where a session went."""


class Worker(WorkerDouble):
    """A worker with its part of the directory."""

    def __init__(self, cluster: ClusterDouble, number: int) -> None:
        self.number = number
        self._cluster = cluster

        def make_directory(link: Any, slices: Any, counters: Any) -> SessionDirectory:
            return SessionDirectory(
                link,
                slices,
                counters,
                instance=INSTANCE,
                replica_id=f"replica-{number}",
                timeout=TAKEOVER_TIMEOUT_S,
            )

        self._connection = cluster.connect(number % SERVERS, self._receive)
        super().__init__(make_directory=make_directory)
        # The connector writes them at the start of a connection.
        cluster.write(self._connection, self.link.subscription_lines())

    def authenticate(self, presentation: Presentation) -> Any:
        return Client("principal")

    @property
    def claims(self) -> Claims:
        assert self.directory is not None
        return self.directory.claims

    def flush(self) -> None:
        """Do what is due, and send NATS what there is for it."""
        self.loop.run()
        data, self._nats_transport.written = self._nats_transport.written, b""
        self._cluster.write(self._connection, data)

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish a message at once."""
        self._cluster.write(
            self._connection, b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)
        )

    def disconnect(self) -> None:
        """End the connection to NATS, which notices."""
        lines = [b"UNSUB %b\r\n" % sid for sid in self._connection.subscriptions]
        self._cluster.write(self._connection, b"".join(lines))

    def _receive(self, data: bytes) -> None:
        feed(self._nats, data)
        self.flush()


def _ignore(data: bytes) -> None:
    """Take what a worker gets that has ended."""


class SimulatedClient:
    """A client with a persistent session, which connects here and there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device: Device | None = None
        self.worker: Worker | None = None
        self.known = False
        """It has been connected before."""
        self.connected = False
        self.settled = True
        """It has been where it is for a while."""
        self.roams = False
        """All NATS servers know of its session: it is found wherever the client goes, however often."""
        self.lost = 0
        """How often it has not found its session."""

    def connect(self, worker: Worker) -> None:
        """Connect to a worker; the connection before is left open, or is gone already."""
        self.device = worker.unconnected()
        self.worker = worker
        self.connected = False
        self.device.send(mqtt.Connect(self.name, False, 0, None))

    def look(self) -> None:
        """Take CONNACK."""
        if self.device is None or self.worker is None or self.connected:
            return
        for packet in self.device.received():
            if isinstance(packet, mqtt.Connack) and packet.return_code == 0:
                self.connected = True
                self.lost += self.known and not packet.session_present
                self.known = True
        if self.device is not None and self.device.closed:
            self.device = None

    def go(self) -> None:
        """End the connection without a word."""
        if self.device is not None:
            self.device.leave()
        self.device = None


class World:
    """Workers, servers and clients that act in an order of chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = ClusterDouble(SERVERS, seed)
        self.workers = [Worker(self.cluster, number) for number in range(WORKERS)]
        self.clients = [SimulatedClient(f"client-{number}") for number in range(CLIENTS)]
        for worker in self.workers:
            worker.flush()
        self.settle()

    def settle(self) -> None:
        """Let all arrive that is under way, and some time pass."""
        for _ in range(10):
            self.pass_time()
            while self.cluster.step():
                pass
            for client in self.clients:
                client.look()
                client.settled = True
                client.roams = client.known
            for worker in self.workers:
                worker.flush()

    def exchange(self) -> None:
        """Let all arrive that is under way, in no time."""
        for _ in range(10):
            for worker in self.workers:
                worker.flush()
            while self.cluster.step():
                pass
        for client in self.clients:
            client.look()

    def pass_time(self) -> None:
        """Put all clocks forward, and do what workers do ten times a second."""
        for worker in self.workers:
            worker.loop.pass_time(CHECK_S)
            assert worker.directory is not None
            worker.directory.check()
            worker.flush()

    def arrive(self) -> None:
        """Let some of what is under way arrive."""
        for _ in range(self.random.randrange(12)):
            self.cluster.step()
        for client in self.clients:
            client.look()
        for worker in self.workers:
            worker.flush()

    def offer_to(self, worker: Worker, *takers: Worker) -> None:
        """Have a worker offer its sessions to others, as if it stopped."""
        for offer in worker.stored.offers():
            for taker in takers:
                subject = f"{messages.inbox_prefix(f'replica-{taker.number}')}{messages.HELLO}"
                worker.publish(subject, messages.encode(offer))

    def offline_client(self, worker: Worker) -> SimulatedClient:
        """Return a client that has been connected to a worker, where its session is."""
        client = self.clients[0]
        client.connect(worker)
        self.settle()
        client.go()
        self.settle()
        assert client.known
        assert len(worker.stored.offers()) == 1
        return client

    def sessions(self) -> list[int]:
        """Return how many sessions of offline clients each worker has."""
        return [len(worker.stored.offers()) for worker in self.workers]

    def act(self) -> None:
        """Do one thing by chance."""
        client = self.random.choice(self.clients)
        kind = self.random.random()
        if kind < 0.35:
            if client.settled or (client.roams and (client.connected or self.random.random() < 0.2)):
                client.settled = False
                if self.random.random() < 0.5:
                    client.go()
                client.connect(self.random.choice(self.workers))
        elif kind < 0.4:
            if client.connected:
                client.go()
        elif kind < 0.5:
            worker, *others = self.random.sample(self.workers, len(self.workers))
            self.offer_to(worker, *others[: self.random.choice((1, 1, 1, 2))])
        elif kind < 0.53:
            self.pass_time()
        self.arrive()

    def close(self) -> None:
        for worker in self.workers:
            worker.__exit__()


@pytest.fixture
def world() -> Iterator[World]:
    found = World(0)
    yield found
    found.close()


def test_an_offered_session_is_at_one_worker(world: World) -> None:
    first, second = world.workers[:2]
    world.offline_client(first)
    world.offer_to(first, second)
    world.settle()
    assert world.sessions() == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("way", ["the client goes", "the worker closes"])
def test_a_session_is_taken_whose_last_connect_was_not_admitted(world: World, way: str) -> None:
    first = world.workers[0]
    client = world.offline_client(first)
    device = first.unconnected()
    device.send(mqtt.Connect(client.name, False, 0, None))
    if way == "the client goes":
        first.flush()
        device.leave()
    else:
        first.close()
    world.settle()
    world.offer_to(first, world.workers[1])
    world.settle()
    assert world.sessions() == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(60))
def test_of_two_workers_that_are_offered_a_session_one_gets_it(seed: int) -> None:
    world = World(seed)
    first = world.workers[0]
    world.offline_client(first)
    takers = world.random.sample(world.workers[1:], 2)
    world.offer_to(first, *takers)
    for _ in range(4):
        world.settle()
    sessions = world.sessions()
    world.close()
    assert sum(sessions) == 1, sessions
    assert sessions[0] == 0


def test_a_client_always_finds_its_session() -> None:
    lost = 0
    for seed in range(12):
        world = World(seed)
        for _ in range(40):
            for _ in range(25):
                world.act()
            world.settle()
        lost += sum(client.lost for client in world.clients)
        timeouts = sum(worker.claims.results["timeout"] for worker in world.workers)
        world.close()
    assert not lost
    assert not timeouts


def test_a_claim_that_nobody_answers_is_given_up_for_a_newer_one(world: World) -> None:
    """The worker with the newer CONNECT waits for the other one, which waits for a third that says nothing."""
    first, client = world.workers[0], world.clients[0]
    name = session_name("session", "principal", client.name)
    subject = messages.session_prefix(INSTANCE) + name
    inbox = messages.inbox_prefix("replica-9") + "1"
    received: list[bytes] = []
    other = world.cluster.connect(1, received.append)
    world.cluster.write(other, f"SUB {subject} 1\r\nSUB {inbox} 2\r\n".encode())
    world.settle()
    client.connect(first)
    world.settle()
    newer = messages.encode(Claim(name, (1 << 63) - 1, resumes=True, held=False, inbox=inbox))
    world.cluster.write(other, b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(newer), newer))
    for _ in range(2):
        world.settle()
    assert client.device is None
    assert len(first.claims) == 0
    assert messages.encode(Nothing(unknown=True)) in received[-1]


def test_a_claim_does_not_go_round_for_ever(world: World) -> None:
    """Two workers that have each given the session to the other send a claim to and fro."""
    first, second, third = world.workers[:3]
    client = world.offline_client(first)
    for holder, other in ((first, second), (second, first)):
        if holder is second:
            client.connect(second)
            for _ in range(3):
                world.settle()
            assert client.connected
        name = session_name("session", "principal", client.name)
        claim = Claim(
            name,
            (1 << 63) - 1,
            resumes=True,
            held=False,
            inbox=f"{messages.inbox_prefix(f'replica-{other.number}')}1",
        )
        third.publish(messages.session_prefix(INSTANCE) + name, messages.encode(claim))
        world.settle()
        client.go()
    client.connect(third)
    for _ in range(4):
        world.settle()
    assert client.connected
    assert len(third.claims) == 0


def test_what_waits_for_an_identity_goes_before_the_session(world: World) -> None:
    """Otherwise a will, or a message at QoS 0, comes after what the client sends to the next worker."""
    first, second = world.workers[:2]
    client = world.clients[0]
    client.connect(first)
    world.settle()
    assert client.device is not None
    for token in ("one", "two"):
        client.device.publish(f"kp1/{APP}/dcx/{token}/json", b"here")
    client.connect(second)
    world.exchange()
    assert not client.connected
    first.asked, later = first.asked[:1], first.asked[1:]
    first.identify()
    world.exchange()
    assert not client.connected
    first.asked = later
    first.identify()
    world.exchange()
    assert client.connected
    assert not client.lost


def test_a_session_does_not_wait_for_ever_for_an_identity(world: World) -> None:
    first, second = world.workers[:2]
    client = world.clients[0]
    client.connect(first)
    world.settle()
    assert client.device is not None
    client.device.publish(f"kp1/{APP}/dcx/t/json", b"here")
    client.connect(second)
    world.exchange()
    assert not client.connected
    world.settle()
    assert client.connected
    assert not client.lost


def test_a_claim_that_overtakes_a_subscription_is_sent_on(world: World) -> None:
    """The server of the third worker knows that the session has left the first, and not where it is."""
    first, second, third = world.workers[:3]
    client = world.offline_client(first)
    late = world.cluster.servers[second.number % SERVERS]
    client.connect(second)
    world.cluster.hold(late, world.cluster.servers[third.number % SERVERS])
    world.settle()
    client.go()
    client.connect(third)
    world.settle()
    assert not client.connected
    world.cluster.release()
    world.settle()
    assert client.connected
    assert not client.lost


def test_a_claim_that_a_worker_takes_to_its_end_is_made_again(world: World) -> None:
    """A worker that has just ended has got the claim without reading it."""
    first, client = world.workers[0], world.clients[0]
    subject = messages.session_prefix(INSTANCE) + session_name("session", "principal", client.name)
    ended = world.cluster.connect(1, _ignore)
    world.cluster.write(ended, f"SUB {subject} 1\r\n".encode())
    world.settle()
    client.connect(first)
    world.settle()
    assert not client.connected
    world.cluster.write(ended, b"UNSUB 1\r\n")
    world.settle()
    assert client.connected
    assert first.claims.results["nobody"] == 1


def test_where_a_session_went_is_forgotten_while_it_is_asked_there(world: World) -> None:
    """The first worker is not there any more when NATS answers, and that the session went to it is a minute ago."""
    first, second, third = world.workers[:3]
    client = world.offline_client(third)
    client.connect(first)
    given_at = third.loop.now
    while not client.connected:
        world.arrive()
    client.go()
    world.offer_to(first, second)
    world.settle()
    first.disconnect()
    world.settle()
    third.loop.now = given_at + MOVED_S
    client.connect(third)
    third.flush()
    third.loop.now += CHECK_S
    world.settle()
    assert client.connected
    assert not client.lost
