"""The CoAP load generator against servers that behave and servers that do not."""

import socket
from collections import Counter

import aiocoap
import pytest
from kaa_bench import packets
from kaa_bench.errors import BenchError
from kaa_bench.load.datagram import CoapLoad
from kaa_bench.load.loop import RunResult
from kaa_gateway.wire.coap import Message, decode, encode

from tests.unit.bench.load.datagram_peer import Answer, connected_to
from tests.unit.bench.load.peer import STALL_TIMEOUT_S

REQUEST = packets.coap_post(1)
CON, NON, ACK, RST = range(4)
CHANGED = 0x44
NOT_FOUND = 0x84
UNAVAILABLE = 0xA3
SILENCE_S = 0.1


def piggybacked(datagram: bytes, code: int = CHANGED) -> bytes:
    request = decode(datagram)
    return encode(Message(ACK, code, request.message_id, request.token))


def separate(datagram: bytes, message_id: int, type_: int = CON) -> bytes:
    return encode(Message(type_, CHANGED, message_id, decode(datagram).token))


def empty(type_: int, message_id: int) -> bytes:
    return encode(Message(type_, 0, message_id))


def run(answer: Answer, messages: int, connections: int = 1, silence: float = SILENCE_S) -> RunResult:
    with connected_to(answer, connections) as sockets:
        load = CoapLoad(sockets, [REQUEST] * connections, silence=silence)
        return load.run(messages=messages, stall_timeout=STALL_TIMEOUT_S)


def test_each_request_waits_for_its_response() -> None:
    seen: list[bytes] = []

    def answer(datagram: bytes) -> list[bytes]:
        seen.append(datagram)
        return [piggybacked(datagram)]

    result = run(answer, messages=300, silence=STALL_TIMEOUT_S)
    assert (result.sent, result.acknowledged, result.errors, result.retransmitted) == (300, 300, {}, 0)
    requests = [decode(datagram) for datagram in seen]
    assert [request.message_id for request in requests] == list(range(1, 301))
    assert len({request.token for request in requests}) == 300


def test_the_window_is_kept_by_each_socket_for_itself() -> None:
    held: dict[int, bytes] = {}

    def answer_when_full(datagram: bytes) -> list[bytes]:
        held[decode(datagram).message_id] = datagram
        if len(held) < 4:
            return []
        replies = [piggybacked(datagram) for datagram in reversed(held.values())]
        held.clear()
        return replies

    with connected_to(answer_when_full) as sockets:
        load = CoapLoad(sockets, [REQUEST], 4, silence=STALL_TIMEOUT_S)
        result = load.run(messages=40, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors, result.retransmitted) == (40, {}, 0)


def test_message_ids_go_on_from_run_to_run() -> None:
    seen: list[int] = []

    def answer(datagram: bytes) -> list[bytes]:
        seen.append(decode(datagram).message_id)
        return [piggybacked(datagram)]

    with connected_to(answer) as sockets:
        load = CoapLoad(sockets, [REQUEST], silence=STALL_TIMEOUT_S)
        for messages in (1, 5, 4):
            assert load.run(messages=messages, stall_timeout=STALL_TIMEOUT_S).acknowledged == messages
    assert seen == list(range(1, 11))


def test_message_ids_are_not_used_twice() -> None:
    with connected_to(lambda datagram: [piggybacked(datagram)]) as sockets:
        load = CoapLoad(sockets, [REQUEST], 32, silence=1)
        result = load.run(messages=70_000, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (65_535, {"message IDs used up": 1})


def test_what_is_not_answered_is_sent_again_unchanged() -> None:
    copies: Counter[bytes] = Counter()

    def answer_the_second(datagram: bytes) -> list[bytes]:
        copies[datagram] += 1
        return [piggybacked(datagram)] if copies[datagram] == 2 else []

    result = run(answer_the_second, messages=4)
    assert (result.sent, result.acknowledged, result.errors) == (4, 4, {})
    assert len(copies) == 4
    assert result.retransmitted >= 4


def test_a_separate_response_is_acknowledged() -> None:
    acknowledged: list[int] = []

    def answer(datagram: bytes) -> list[bytes]:
        request = decode(datagram)
        if request.type == ACK:
            assert (request.code, request.token) == (0, b"")
            acknowledged.append(request.message_id)
            return []
        return [empty(ACK, request.message_id), separate(datagram, 0xF000 + request.message_id)]

    result = run(answer, messages=20, silence=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (20, {})
    assert acknowledged == [0xF000 + number for number in range(1, 21)]


def test_a_request_that_the_server_has_taken_is_not_sent_again() -> None:
    seen: list[bytes] = []

    def take(datagram: bytes) -> list[bytes]:
        seen.append(datagram)
        return [empty(ACK, decode(datagram).message_id)]

    with connected_to(take) as sockets, pytest.raises(BenchError, match="1 messages sent, 0 acknowledged"):
        CoapLoad(sockets, [REQUEST], silence=0.5).run(messages=1, stall_timeout=1.5)
    assert len(seen) == 1


@pytest.mark.parametrize("type_", [CON, NON])
def test_a_separate_response_stands_for_the_acknowledgement_that_was_lost(type_: int) -> None:
    def answer(datagram: bytes) -> list[bytes]:
        request = decode(datagram)
        return [] if request.type == ACK else [separate(datagram, 9, type_)]

    result = run(answer, messages=10, silence=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors, result.retransmitted) == (10, {}, 0)


def test_an_answer_that_comes_twice_counts_once_and_is_acknowledged_twice() -> None:
    acknowledgements = 0

    def answer(datagram: bytes) -> list[bytes]:
        nonlocal acknowledgements
        request = decode(datagram)
        if request.type == ACK:
            acknowledgements += 1
            return []
        if request.message_id % 2:
            return [piggybacked(datagram)] * 2
        return [separate(datagram, 5)] * 2

    result = run(answer, messages=10, silence=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (10, {})
    assert acknowledgements >= 9  # the last copy may come after the end of the run


def test_answers_that_are_not_success_are_counted_by_code_and_per_run() -> None:
    def answer(datagram: bytes) -> list[bytes]:
        number = decode(datagram).message_id
        match number % 4:
            case 0:
                return [empty(RST, number)]
            case 1:
                return [piggybacked(datagram, NOT_FOUND)]
            case 2:
                return [piggybacked(datagram, UNAVAILABLE)]
        return [piggybacked(datagram)]

    with connected_to(answer) as sockets:
        load = CoapLoad(sockets, [REQUEST])
        for _ in range(2):
            result = load.run(messages=8, stall_timeout=STALL_TIMEOUT_S)
            assert (result.sent, result.acknowledged) == (8, 2)
            assert result.errors == {"code 4.04": 2, "code 5.03": 2, "reset": 2}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (encode(Message(ACK, CHANGED, 2, packets.coap_post(1)[4:6] + b"\0\1")), "wrong identifier"),
        (encode(Message(ACK, CHANGED, 1, packets.coap_post(1)[4:6] + b"\0\2")), "wrong identifier"),
        (encode(Message(ACK, CHANGED, 1, packets.coap_post(2)[4:6] + b"\0\1")), "wrong identifier"),
        (encode(Message(ACK, CHANGED, 1)), "wrong identifier"),
        (encode(Message(CON, CHANGED, 1, packets.coap_post(2)[4:6] + b"\0\1")), "wrong identifier"),
        (encode(Message(NON, CHANGED, 1, b"\0\1\0\2")), "wrong identifier"),
        (empty(RST, 0xFFFF), "wrong identifier"),
        (empty(ACK, 2), "wrong identifier"),
        (empty(CON, 1), "unexpected packet"),
        (encode(Message(NON, CHANGED, 1, b"\1")), "unexpected packet"),
        (REQUEST, "unexpected packet"),
        (b"\x60\x44\x00", "malformed response"),
        (b"\x60\x44\x00\x01\xff", "malformed response"),
        (bytes([0x64, 0x44, 0, 1, 0, 1, 0, 1, 0xFF]) + bytes(3000), "malformed response"),
    ],
)
def test_a_wrong_answer_is_counted_and_ends_the_connection(reply: bytes, error: str) -> None:
    result = run(lambda _: [reply], messages=3, silence=STALL_TIMEOUT_S)
    assert (result.sent, result.acknowledged, result.errors) == (1, 0, {error: 1})


def test_nobody_at_the_port_is_a_socket_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = taken.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
        connected.connect(address)
        result = CoapLoad([connected], [REQUEST]).run(messages=2, stall_timeout=STALL_TIMEOUT_S)
    assert result.errors == {"socket error": 1}


def test_a_silent_server_is_a_stall_whatever_is_sent_again() -> None:
    copies = 0

    def count(_: bytes) -> list[bytes]:
        nonlocal copies
        copies += 1
        return []

    with connected_to(count) as sockets, pytest.raises(BenchError, match="1 messages sent, 0 acknowledged"):
        CoapLoad(sockets, [REQUEST], silence=0.1).run(messages=5, stall_timeout=1)
    assert copies > 1


@pytest.mark.parametrize(
    ("messages", "window"),
    [([REQUEST[:7]], 1), ([b"\x40" + REQUEST[1:]], 1), ([REQUEST], 0), ([REQUEST], 2000)],
)
def test_arguments_that_would_leave_the_buffers_are_refused(messages: list[bytes], window: int) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unconnected,
        pytest.raises(ValueError, match=r"\w"),
    ):
        CoapLoad([unconnected], messages, window)


def test_the_request_is_one_that_an_independent_parser_reads() -> None:
    message = aiocoap.Message.decode(REQUEST)
    assert message.code is aiocoap.POST
    assert message.mtype is aiocoap.CON
    assert message.opt.uri_path == ("kp1", "bench_v1", "dcx", "bench-000001", "json")
    assert message.opt.content_format == 50
    assert message.payload == packets.PAYLOAD
