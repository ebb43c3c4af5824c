"""Whole MQTT sessions, damaged or made up, against a running gateway through real sockets.

Whatever comes, the gateway keeps running without an unexpected error in its log, ends that connection when its peer
has ended it, answers nothing but packets of a server, serves its other connections, and does not grow.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kaa_bench.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
    encode,
)

from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST

if TYPE_CHECKING:
    from kaa_bench.mqtt_packets import Packet

CASES = 6000
SEED = 20261123
RSS_GROWTH_MAX = 24 * 1024 * 1024
"""Bytes that the gateway may grow over all cases, which send and leave behind far more."""
TIMEOUT_S = 20.0

FROM_SERVER = (Connack, Publish, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Pingresp)

TOPIC = "kp1/app_v1/dcx/fuzz-{}/json/1"


class Neighbour:
    """A connection that is there all the time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=TIMEOUT_S)
        self._socket.sendall(encode(Connect("neighbour", keep_alive=0)))
        assert self._socket.recv(4) == encode(Connack(False, 0))

    def ping(self) -> None:
        self._socket.sendall(encode(Pingreq()))
        assert self._socket.recv(2) == encode(Pingresp())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def neighbour(shared_gateway: GatewayProcess) -> Iterator[Neighbour]:
    neighbour = Neighbour(shared_gateway.mqtt_port)
    yield neighbour
    neighbour.ping()
    neighbour.close()


def exchange(port: int, *pieces: bytes) -> list[Packet]:
    """Send pieces, end our direction, and return all packets that came until the server ended its own."""
    received = b""
    with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                received += data
        except TimeoutError:
            raise
        except OSError:
            # It closed before it had read everything.
            pass
    # A CONNECT that happens to be one of MQTT 5 is answered as such.
    level = 5 if b"".join(pieces)[2:9] == b"\x00\x04MQTT\x05" else 4
    packets: list[Packet] = []
    at = 0
    while at < len(received):
        packet, size = decode(received[at:], level)
        if packet is None:
            # The rest was lost in the reset.
            break
        assert isinstance(packet, FROM_SERVER)
        packets.append(packet)
        at += size
    assert not packets or isinstance(packets[0], Connack)
    return packets


def valid_session(rng: random.Random) -> list[bytes]:
    """A session as a device would have it, packet by packet."""

    def topic() -> str:
        names = [
            TOPIC.format(rng.randrange(20)),
            "kp1/app_v1/unaware/x",
            "outside",
            "kp1/nobody/dcx/t",
            "kp1/app_v1",
        ]
        return rng.choice(names)

    will = Will(topic(), rng.randbytes(5), rng.randrange(3)) if rng.random() < 0.3 else None
    session: list[Packet] = [
        Connect(
            f"fuzz-{rng.randrange(10)}",
            clean_session=rng.random() < 0.7,
            keep_alive=rng.randrange(65536),
            will=will,
            user_name=rng.choice([None, "user"]),
            level=rng.choice([3, 4, 4]),
        )
    ]
    for _ in range(rng.randrange(12)):
        qos = rng.randrange(3)
        packet_id = rng.randrange(1, 6)
        steps: list[Packet] = [
            Publish(topic(), rng.randbytes(rng.choice([0, 1, 200, 5000])), qos, packet_id if qos else 0),
            Publish(topic(), b"{}", 2, packet_id, dup=True),
            Subscribe(packet_id, ((f"{topic()}/#", qos), ("+/#", qos))),
            Unsubscribe(packet_id, ("+/#", topic())),
            Puback(packet_id),
            Pubrec(packet_id),
            Pubrel(packet_id),
            Pubcomp(packet_id),
            Pingreq(),
        ]
        session.append(rng.choice(steps))
    if rng.random() < 0.5:
        session.append(Disconnect())
    return [encode(packet) for packet in session]


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The data with a few bytes changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        end = min(at + rng.choice([1, 1, 1, 2, 4, 16]), len(changed))
        match rng.randrange(5):
            case 0:
                changed[at:end] = rng.randbytes(end - at)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end]
            case 3:
                changed[at:at] = rng.choice(
                    [b"\xff\xff\xff\x7f", b"\x00", b"\x80\x80\x80\x80", b"\x10", b"\x32\x02"]
                )
            case _:
                if at < end:
                    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_damaged_sessions(shared_gateway: GatewayProcess, neighbour: Neighbour) -> None:
    rng = random.Random(SEED)
    port = shared_gateway.mqtt_port
    warm = 0
    connected = 0
    for case in range(CASES):
        packets = valid_session(rng)
        # Mostly behind an intact CONNECT, where there is more to damage.
        if rng.random() < 0.3:
            stream = damaged(rng, b"".join(packets))
        else:
            stream = packets[0] + damaged(rng, b"".join(packets[1:]))
        cut = rng.randrange(len(stream) + 1)
        connected += bool(exchange(port, stream[:cut], stream[cut:]))
        if case % 100 == 0:
            neighbour.ping()
        if case == CASES // 4:
            warm = shared_gateway.rss
    neighbour.ping()
    assert shared_gateway.running
    assert connected > CASES // 2
    assert shared_gateway.rss - warm < RSS_GROWTH_MAX


packet_ids = st.sampled_from([1, 2, 65535])
topics = st.one_of(
    st.sampled_from(
        ["kp1/app_v1/dcx/h/json/1", "kp1/app_v1/dcx/h/json", "kp1/app_v1/unaware", "kp1/app_v1/dcx/1/2"]
    ),
    st.lists(st.text(max_size=6), max_size=6).map(lambda levels: "kp1/app_v1/dcx/" + "/".join(levels)),
    st.text(max_size=20),
)
payloads = st.binary(max_size=300)
qos = st.sampled_from([0, 1, 2])


def made(kind: Callable[..., Packet], *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """The bytes of packets of a kind, whose first fields are drawn."""
    return st.tuples(*fields).map(lambda values: encode(kind(*values)))


filters = st.lists(st.tuples(topics, qos), max_size=4).map(tuple)
made_up_packets = st.one_of(
    made(Publish, topics, payloads),
    made(Publish, topics, payloads, st.sampled_from([1, 2]), packet_ids, st.booleans(), st.booleans()),
    made(Subscribe, packet_ids, filters),
    made(Unsubscribe, packet_ids, st.lists(topics, max_size=4).map(tuple)),
    made(Puback, packet_ids),
    made(Pubrec, packet_ids),
    made(Pubrel, packet_ids),
    made(Pubcomp, packet_ids),
    made(Pingreq),
    made(Connect, st.text(max_size=10), st.booleans(), st.integers(0, 65535)),
    made(Disconnect),
)
wills = st.tuples(topics, payloads, qos, st.booleans()).map(lambda fields: Will(*fields))
openings = st.one_of(
    made(Connect, st.just("h"), st.booleans()),
    made(
        Connect,
        st.text(max_size=10),
        st.booleans(),
        st.integers(0, 65535),
        st.none() | wills,
        st.none() | st.text(max_size=5),
        st.none() | st.binary(max_size=5),
        st.sampled_from([3, 4]),
    ),
    st.binary(max_size=30),
    st.binary(max_size=40).map(lambda data: bytes([0x10, len(data)]) + data),
    # A protocol name with any level behind it
    st.tuples(st.sampled_from([b"MQTT", b"MQIsdp"]), st.binary(min_size=1, max_size=40)).map(
        lambda parts: bytes([0x10, 2 + len(parts[0] + parts[1]), 0, len(parts[0])]) + parts[0] + parts[1]
    ),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(openings, st.lists(made_up_packets | st.binary(max_size=20), max_size=10), st.integers(0, 10))
@example(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00", [], 0)
def test_made_up_sessions(
    shared_gateway: GatewayProcess, neighbour: Neighbour, opening: bytes, packets: list[bytes], cut: int
) -> None:
    stream = b"".join((opening, *packets))
    exchange(shared_gateway.mqtt_port, stream[:cut], stream[cut:])
    neighbour.ping()
