"""What a worker keeps of what it tells others, while NATS reads it slowly or not at all."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.bus.link import Link
from kaa_gateway.counters import Counters
from kaa_gateway.fleet import messages
from kaa_gateway.fleet.directory import SessionDirectory, session_name
from kaa_gateway.fleet.messages import Claim, Hello, Nothing, Offer, State
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.slices import Slices

from tests.unit.kp.worker_double import PING, WorkerDouble, feed

INSTANCE = "kpc"
REPLICA = "r" * 16_000
"""It stands in each message, so that few of them make many bytes."""
WAITING_MAX = 16 * 1024 * 1024
ENOUGH = WAITING_MAX // len(REPLICA) + 1
"""Messages that reach the bound."""
FORMER_MAX = 20_000
FORMER_TIME_S = 3.1
SERVER_UNAVAILABLE = 3
OTHER = messages.inbox_prefix("other")


class Worker(WorkerDouble):
    """A worker that knows of another one. Its clients are anonymous, or have a principal."""

    def __init__(self, replica_id: str, principal: str = "") -> None:
        self._principal = principal

        def make_directory(link: Link, slices: Slices, counters: Counters) -> SessionDirectory:
            return SessionDirectory(
                link, slices, counters, instance=INSTANCE, replica_id=replica_id, timeout=5.0
            )

        super().__init__(make_directory=make_directory)
        assert self.directory is not None
        self.inbox = messages.inbox_prefix(replica_id)
        self.hear(f"{messages.session_prefix(INSTANCE)}{messages.HELLO}", Hello(1, f"{OTHER}hello"))
        self.loop.run()
        assert not self.directory.others.alone

    def authenticate(self, presentation: Presentation) -> Any:
        return Client(self._principal)

    def hear(self, subject: str, message: Any) -> None:
        """Take a message of the other worker."""
        payload = messages.encode(message)
        feed(self._nats, b"MSG %b 1000000 %d\r\n%b\r\n" % (subject.encode(), len(payload), payload))

    def take_written(self) -> bytes:
        """Return what has been written to NATS since the last call."""
        self.loop.run()
        data, self._nats_transport.written = self._nats_transport.written, b""
        return data

    def confirm(self) -> None:
        """Read what has been written, as NATS does, until nothing more comes."""
        while pings := self.take_written().count(PING):
            feed(self._nats, b"PONG\r\n" * pings)

    def connect(self, client_id: str) -> int:
        """Have a client come and go. Return the return code of its CONNACK."""
        device = self.unconnected()
        device.send(mqtt.Connect(client_id, True, 0, None))
        (connack,) = device.received()
        device.drop()
        return int(connack.return_code)

    def fill(self) -> None:
        """Have clients connect until NATS is told no more."""
        for number in range(ENOUGH + 1):
            self.connect(f"client-{number}")

    def counted(self, event: str) -> int:
        return self.counters.by_reason().get((event, "sessions_backlog"), 0)


@pytest.fixture
def worker_of() -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(*arguments: Any) -> Worker:
        made.append(Worker(*arguments))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


def test_a_connect_is_refused_while_too_much_waits_for_nats(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(REPLICA)
    worker.fill()
    written = len(worker._nats_transport.written)
    for _ in range(100):
        assert worker.connect("one-too-many") == SERVER_UNAVAILABLE
    assert worker.connect("") == 0, "nobody is told of it"
    assert len(worker._nats_transport.written) == written <= WAITING_MAX + 2 * len(REPLICA)
    assert worker.counted("closed") >= 100
    worker.confirm()
    assert worker.connect("one-too-many") == 0


def test_what_waited_for_a_connection_that_is_lost_waits_no_more(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(REPLICA)
    worker.fill()
    assert worker.connect("one-too-many") == SERVER_UNAVAILABLE
    worker.link.abort()
    worker.connect_nats()
    assert worker.connect("one-too-many") == 0


def test_sessions_move_although_much_waits_and_other_messages_are_dropped(
    worker_of: Callable[..., Worker],
) -> None:
    worker = worker_of(REPLICA)
    device = worker.unconnected()
    device.send(mqtt.Connect("mover", False, 0, None))
    worker.loop.run()
    claims = dict(re.findall(rb"PUB ([^ ]+) [^ ]+\.([^ .]+) ", worker.take_written()))
    token = claims[(messages.session_prefix(INSTANCE) + session_name("session", "", "mover")).encode()]
    worker.hear(f"short.{token.decode()}", Nothing())
    assert isinstance(device.received()[0], mqtt.Connack)
    worker.fill()
    worker.take_written()
    for client_id in ("mover", "unknown"):
        name = session_name("session", "", client_id)
        claim = Claim(name, (1 << 63) - 1, resumes=True, held=False, inbox=f"{OTHER}{client_id}")
        worker.hear(messages.session_prefix(INSTANCE) + name, claim)
    written = worker.take_written()
    at = written.index(f"PUB {OTHER}mover ".encode())
    size = int(written[at : written.index(b"\r\n", at)].split()[-1])
    start = written.index(b"\r\n", at) + 2
    assert isinstance(messages.decode(written[start : start + size]), State)
    assert f"PUB {OTHER}unknown ".encode() not in written
    assert worker.counted("dropped") == 1


def test_former_subscriptions_end_early_if_there_are_too_many(worker_of: Callable[..., Worker]) -> None:
    """Sessions are offered to the worker, and claimed by the other one at once."""
    worker = worker_of("replica-1")
    written = worker.take_written()
    for number in range(FORMER_MAX + 100):
        client_id = f"client-{number}"
        name = session_name("session", "", client_id)
        worker.hear(f"{worker.inbox}{messages.HELLO}", Offer(name, 1, "", None, None, client_id))
        claim = Claim(name, (1 << 63) - 1, resumes=True, held=True, inbox=f"{OTHER}1")
        worker.hear(messages.session_prefix(INSTANCE) + name, claim)
        if number % 1000 == 0:
            written += worker.take_written()
            feed(worker._nats, b"PONG\r\n" * worker.link.unconfirmed_count())
    written += worker.take_written()
    joined = [int(sid) for sid in re.findall(rb"SUB [^ ]+ (\d+)\r\n", written)]
    left = [int(sid) for sid in re.findall(rb"UNSUB (\d+)\r\n", written)]
    assert left == joined[:100]
    worker.loop.now += FORMER_TIME_S
    assert worker.directory is not None
    worker.directory.check()
    assert len(re.findall(rb"UNSUB ", worker.take_written())) == FORMER_MAX
