"""Messages that no worker would send: none ends a link, a connection or a worker, and no state of it is believed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kaa_bench.mqtt_packets import Connack, Publish
from kaa_gateway.errors import UNDECODABLE
from kaa_gateway.fleet import messages
from kaa_gateway.fleet.directory import session_name
from kaa_gateway.fleet.messages import (
    Assertion,
    Bye,
    Claim,
    Hello,
    Newer,
    Nothing,
    Notice,
    Offer,
    State,
)
from kaa_gateway.mqtt import session_state
from kaa_gateway.mqtt.session_state import InFlight, Queued, Received, SessionState, Subscription
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.esp import until
from tests.support.fleet import Fleet, fleet
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.nats import NatsServer

NEW = Connack(False, 0)
NAME = session_name("session", "", "c")
INBOX = messages.inbox_prefix("double") + "1"
FAR = (1 << 63) - 1


def state(**changes: object) -> bytes:
    """Return the state of an empty session, with changes."""
    fields = {
        "version": 1,
        "expiry": 60.0,
        "level_in_flight": 4,
        "last_packet_id": 0,
        "subscriptions": [],
        "endpoints": [],
        "in_flight": [],
        "queued": [],
        "received": [],
        "pushes": [],
    }
    return session_state.encode(SessionState(**(fields | changes)))  # type: ignore[arg-type]


class Impostor:
    """A NATS client that says what it is told, on the subjects of workers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answer: list[bytes] = []
        """What it answers to each claim."""

    async def say(self, subject: str, payload: bytes) -> None:
        await self.client.publish(subject, payload)
        await self.client.flush()

    async def collect(self, message: Msg) -> None:
        for payload in self.answer if message.reply else ():
            await self.client.publish(message.reply, payload)


@pytest.fixture
async def impostor(shared_nats: NatsServer) -> AsyncIterator[Impostor]:
    client = Client()
    await client.connect(shared_nats.url)
    found = Impostor(client)
    await client.subscribe(messages.session_prefix("kpc") + "*", cb=found.collect)
    await client.flush()
    yield found
    await client.close()


@pytest.fixture
async def one(shared_nats: NatsServer, impostor: Impostor) -> AsyncIterator[Fleet]:
    async with fleet(shared_nats.url, 1, mqtt={"takeover_timeout": 0.2}) as found:
        await until(lambda: not found.workers[0].directory.others.alone, "company")
        yield found
        assert found.workers[0].link.connects == 1, "no message may end the link"


MALFORMED_STATES = {
    "nothing": b"",
    "no MessagePack": b"\xc1\xff",
    "other version": msgspec.msgpack.encode([2, 60.0, 4, 0, [], [], [], [], [], []]),
    "deep": b"\x91" * 100_000,
    "a packet that is none": state(in_flight=[InFlight(1, b"\x00", 0)]),
    "half a packet": state(in_flight=[InFlight(1, b"\x32\x7f\x00\x01a", 0)]),
    "another packet": state(in_flight=[InFlight(1, b"\xc0\x00", 0)]),
    "another packet identifier": state(in_flight=[InFlight(1, b"\x32\x05\x00\x01a\x00\x02", 0)]),
    "a topic with a wildcard": state(in_flight=[InFlight(1, b"\x32\x05\x00\x01#\x00\x01", 0)]),
    "a queued topic with a wildcard": state(queued=[Queued(b"a/+", b"", None, 0, 1, False)]),
    "queued properties that are none": state(queued=[Queued(b"a", b"", b"\xff\xff", 0, 1, False)]),
    "a topic filter that is none": state(subscriptions=[Subscription(b"a/#/b", 1, 0)]),
    "a topic filter that is no UTF-8": state(subscriptions=[Subscription(b"\xff", 1, 0)]),
}


@pytest.mark.parametrize("name", list(MALFORMED_STATES))
async def test_a_malformed_state_is_no_state(one: Fleet, impostor: Impostor, name: str) -> None:
    impostor.answer = [messages.encode(State(1, 0, 1, MALFORMED_STATES[name]))]
    async with mqtt_peer(one.ports[0]) as peer:
        assert await peer.connect("c", clean_session=False) == NEW
        assert await peer.until_pingresp() == []
    assert one.reason("dropped", "session_state_malformed") == 1
    assert one.count() == 1


async def test_limits_hold_for_a_state_from_elsewhere(one: Fleet, impostor: Impostor) -> None:
    """What is in flight counts as sent, and is taken; the rest is bounded."""
    many = 5000
    impostor.answer = [
        messages.encode(
            State(
                1,
                0,
                1,
                state(
                    subscriptions=[Subscription(b"a/%d" % number, 1, 0) for number in range(many)],
                    queued=[Queued(b"a", b"x", None, 0, 1, False)] * many,
                    received=[Received(number + 1, (1 << 64) - 1, 0) for number in range(many)],
                    pushes=[-1, (1 << 64) - 1],
                ),
            )
        )
    ]
    async with mqtt_peer(one.ports[0]) as peer:
        assert await peer.connect("c", clean_session=False) == Connack(True, 0)
        assert (await peer.expect(Publish)).payload == b"x"
        session = one.sessions()[0]
        assert session.describe()["subscriptions"] == 1000
        assert session.describe()["queued"] + session.describe()["inFlight"] == 1000


PARTS = {
    "from the middle": [State(1, 1, 2, b"x")],
    "other count": [State(1, 0, 3, b"x"), State(1, 1, 2, b"x")],
    "twice": [State(1, 0, 2, b"x"), State(1, 0, 2, b"x")],
    "never all": [State(1, 0, 2, b"x")],
    "older in between": [State(5, 0, 2, b"x"), State(4, 1, 2, b"x")],
}


@pytest.mark.parametrize("name", list(PARTS))
async def test_parts_that_do_not_fit_are_no_state(one: Fleet, impostor: Impostor, name: str) -> None:
    impostor.answer = [messages.encode(part) for part in PARTS[name]]
    async with mqtt_peer(one.ports[0]) as peer:
        assert await peer.connect("c", clean_session=False) == NEW
        assert await peer.until_pingresp() == []


async def test_a_connection_survives_all_that_is_malformed(one: Fleet, impostor: Impostor) -> None:
    impostor.answer = [messages.encode(Nothing())]
    subject = messages.session_prefix("kpc") + NAME
    async with mqtt_peer(one.ports[0]) as peer:
        assert await peer.connect("c", clean_session=False) == NEW
        hostile = [
            b"",
            b"\x00" * 1000,
            messages.encode(Claim("g" * 32, 1, True, False, INBOX)),
            messages.encode(Claim(NAME, -1, True, False, INBOX)),
            messages.encode(Claim(NAME, FAR, True, False, "kaa.v1.replica.x.session.1\r\nPUB other 0\r\n\r")),
            messages.encode(Claim(NAME, FAR, True, False, "other.subject")),
            messages.encode(Claim(NAME, FAR, True, False, messages.inbox_prefix("a.b") + "1")),
            messages.encode(Claim(NAME, FAR, True, False, messages.inbox_prefix("a") + "*")),
            messages.encode(State(1, 0, 1, state())),
            msgspec.msgpack.encode(["claim", NAME, 1]),
            msgspec.msgpack.encode(["other", NAME]),
        ]
        for payload in hostile:
            await impostor.say(subject, payload)
            await impostor.say(messages.inbox_prefix("replica-0") + "1", payload)
        for message in (
            Assertion(NAME, 1, INBOX),
            Notice(NAME, 1, INBOX),
            Newer(NAME, 1),
            Hello(FAR, INBOX),
            Bye(FAR, INBOX),
            Offer(NAME, FAR, "", None, None, "c"),
            Offer(NAME, 1, "", None, None, "other"),
        ):
            await impostor.say(subject, messages.encode(message))
        await asyncio.sleep(0.1)
        assert await peer.until_pingresp() == []
    async with mqtt_client(one.ports[0], "c2", clean_session=False) as peer:
        assert await peer.until_pingresp() == []


ANYTHING = st.binary(max_size=200) | st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=9) | st.text(max_size=9), st.lists
).map(msgspec.msgpack.encode)


@given(ANYTHING)
@example(b"\x91\xa2\x00\x80")
def test_no_bytes_raise_another_error_than_that_of_the_decoder(data: bytes) -> None:
    with contextlib.suppress(*UNDECODABLE):
        messages.decode(data)
    session_state.decode(data)


async def test_workers_that_say_they_are_there_are_bounded(one: Fleet, impostor: Impostor) -> None:
    subject = messages.session_prefix("kpc") + messages.HELLO
    for number in range(1_100):
        greeting = Hello(number, messages.inbox_prefix(f"nobody-{number}") + messages.HELLO)
        await impostor.client.publish(subject, messages.encode(greeting))
    await impostor.client.flush()
    await until(lambda: one.reason("dropped", "too_many_workers") == 100, "the bound")
    async with mqtt_client(one.ports[0], "c"):
        pass
