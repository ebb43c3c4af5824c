"""The KP/UDP load generator against servers that behave and servers that do not."""

import socket
from collections import Counter

import pytest
from kaa_bench import packets
from kaa_bench.errors import BenchError
from kaa_bench.load.datagram import KpUdpLoad
from kaa_gateway.wire.kpudp import Message, Reason, Type, decode, encode

from tests.unit.bench.load.datagram_peer import connected_to
from tests.unit.bench.load.peer import STALL_TIMEOUT_S

DATA = packets.kpudp_data()


def message_of(datagram: bytes) -> Message:
    """The one frame of a datagram."""
    epoch, (message,) = decode(datagram)
    assert epoch == packets.EPOCH
    return message


def frames(*messages: Message) -> bytes:
    return encode(packets.EPOCH, messages)


def ack(message_id: int) -> Message:
    return Message(Type.ACK, message_id)


def acknowledge(datagram: bytes) -> list[bytes]:
    return [frames(ack(message_of(datagram).message_id))]


def load(sockets: list[socket.socket], window: int, silence: float = STALL_TIMEOUT_S) -> KpUdpLoad:
    return KpUdpLoad(sockets, [DATA] * len(sockets), window, silence=silence)


def test_every_message_is_sent_once_with_consecutive_ids() -> None:
    seen: list[Message] = []

    def answer(datagram: bytes) -> list[bytes]:
        seen.append(message_of(datagram))
        return acknowledge(datagram)

    with connected_to(answer) as sockets:
        result = load(sockets, 8).run(messages=200, stall_timeout=STALL_TIMEOUT_S)
    assert (result.sent, result.acknowledged, result.errors, result.retransmitted) == (200, 200, {}, 0)
    assert seen == [
        Message(Type.CONFIRMED_DATA, number, packets.ALIAS, payload=packets.PAYLOAD)
        for number in range(1, 201)
    ]


def test_acknowledgements_share_a_datagram_in_any_order() -> None:
    window = 16
    held: list[int] = []
    sizes: list[int] = []

    def answer_when_full(datagram: bytes) -> list[bytes]:
        held.append(message_of(datagram).message_id)
        if len(held) < window:
            return []
        sizes.append(len(held))
        replies = [frames(*map(ack, held[: window // 2 - 1 : -1])), frames(*map(ack, held[: window // 2]))]
        held.clear()
        return replies

    with connected_to(answer_when_full) as sockets:
        result = load(sockets, window).run(messages=10 * window, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors, result.retransmitted) == (160, {}, 0)
    assert sizes == [window] * 10


def test_message_ids_wrap_and_runs_follow_each_other() -> None:
    seen: list[int] = []

    def answer(datagram: bytes) -> list[bytes]:
        seen.append(int.from_bytes(datagram[3:5], "big"))
        return [datagram[:2] + b"\x04" + datagram[3:5]]

    with connected_to(answer) as sockets:
        generator = load(sockets, 64)
        for messages in (65_500, 100):
            result = generator.run(messages=messages, stall_timeout=STALL_TIMEOUT_S)
            assert (result.acknowledged, result.errors) == (messages, {})
    assert set(seen) == set(range(65_536))
    assert set(seen[-65:]) == set(range(65))


def test_lost_datagrams_are_sent_again_unchanged_and_count_once() -> None:
    copies: Counter[bytes] = Counter()

    def lose_the_first_of_every_fifth(datagram: bytes) -> list[bytes]:
        copies[datagram] += 1
        lost = message_of(datagram).message_id % 5 == 0 and copies[datagram] == 1
        return [] if lost else acknowledge(datagram)

    with connected_to(lose_the_first_of_every_fifth) as sockets:
        result = load(sockets, 8, silence=0.1).run(messages=60, stall_timeout=STALL_TIMEOUT_S)
    assert (result.sent, result.acknowledged, result.errors) == (60, 60, {})
    assert len(copies) == 60
    assert sum(copies.values()) == 60 + result.retransmitted >= 72


def test_a_ping_is_answered_with_its_data() -> None:
    pongs: list[Message] = []
    data = bytes(range(8))

    def ask_for_proof(datagram: bytes) -> list[bytes]:
        message = message_of(datagram)
        if message.type == Type.PONG:
            pongs.append(message)
            return []
        if message.message_id != 1:
            return acknowledge(datagram)
        ping = Message(Type.PING, 0xABCD, payload=data)
        return [frames(ping, ack(1))]

    with connected_to(ask_for_proof) as sockets:
        result = load(sockets, 1).run(messages=3, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (3, {})
    assert pongs == [Message(Type.PONG, 0xABCD, payload=data)]


def test_an_acknowledgement_that_comes_twice_counts_once() -> None:
    registration = frames(ack(packets.REGISTRATION_ID))
    with connected_to(lambda datagram: [*acknowledge(datagram) * 2, registration]) as sockets:
        result = load(sockets, 4).run(messages=100, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (100, {})


def test_resets_are_counted_by_reason_and_per_run_and_acknowledge_nothing() -> None:
    def answer(datagram: bytes) -> list[bytes]:
        number = message_of(datagram).message_id
        if number % 2:
            return acknowledge(datagram)
        reason = Reason.UNKNOWN_ALIAS if number % 4 else 404
        return [frames(Message(Type.RESET, number, status=reason))]

    with connected_to(answer) as sockets:
        generator = load(sockets, 2)
        for _ in range(2):
            result = generator.run(messages=8, stall_timeout=STALL_TIMEOUT_S)
            assert (result.sent, result.acknowledged) == (8, 4)
            assert result.errors == {"reset 3": 2, "reset 404": 2}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (frames(ack(9)), "wrong identifier"),
        (frames(ack(0xFFFF)), "wrong identifier"),
        (frames(ack(1), ack(2), ack(3), ack(4), ack(5), ack(6)), "wrong identifier"),
        (frames(Message(Type.RESET, 700, status=3)), "wrong identifier"),
        (frames(Message(Type.RESET, 1, status=600)), "malformed response"),
        (encode(packets.EPOCH + 1, [ack(1)]), "malformed response"),
        (b"\xb2\x2a\x04\x00\x01", "malformed response"),
        (b"\xb1\x2a", "malformed response"),
        (b"\xb1\x2a\x04\x00", "malformed response"),
        (frames(Message(Type.PUSH, 1, path="kp1/a/b", status=200)), "unexpected packet"),
        (frames(Message(Type.PONG, 1)), "unexpected packet"),
    ],
)
def test_a_wrong_answer_is_counted_and_ends_the_connection(reply: bytes, error: str) -> None:
    answered: list[bytes] = []

    def answer_the_fourth(datagram: bytes) -> list[bytes]:
        answered.append(datagram)
        return [reply] if len(answered) == 4 else []

    with connected_to(answer_the_fourth) as sockets:
        result = load(sockets, 4).run(messages=10, stall_timeout=STALL_TIMEOUT_S)
    assert result.errors == {error: 1}


def test_a_silent_server_is_a_stall_whatever_is_sent_again() -> None:
    with connected_to(lambda _: []) as sockets, pytest.raises(BenchError, match="4 messages sent, 0 ack"):
        load(sockets, 4, silence=0.1).run(messages=10, stall_timeout=1)


@pytest.mark.parametrize(
    "messages",
    [
        [DATA[:2]],
        [packets.kpudp_registration(1)],
        [DATA, bytes([DATA[0], DATA[1] + 1]) + DATA[2:]],
    ],
)
def test_other_messages_are_refused(messages: list[bytes]) -> None:
    with (
        connected_to(lambda _: [], len(messages)) as sockets,
        pytest.raises(ValueError, match="CONFIRMED DATA"),
    ):
        KpUdpLoad(sockets, messages, 1)
