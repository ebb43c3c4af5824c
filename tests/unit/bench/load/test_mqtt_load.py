"""The MQTT load generator against peers that behave and peers that do not."""

import socket
from collections import Counter

import pytest
from kaa_bench import packets
from kaa_bench.connecting import LoadSpec
from kaa_bench.errors import BenchError
from kaa_bench.load.mqtt import MqttLoad

from tests.unit.bench.load.peer import STALL_TIMEOUT_S, peers, read_exactly

QOS0 = packets.publish(1, 0)
QOS1 = packets.publish(1, 1)
OFFSET = packets.identifier_offset(QOS1)
PINGRESP = b"\xd0\x00"


def puback(identifier: int) -> bytes:
    return b"\x40\x02" + identifier.to_bytes(2, "big")


def read_identifier(connected: socket.socket) -> int | None:
    """The packet identifier of the next PUBLISH, which is otherwise the prebuilt one; None at the end."""
    data = read_exactly(connected, len(QOS1))
    if data is None:
        return None
    assert data[:OFFSET] + b"\x00\x00" + data[OFFSET + 2 :] == QOS1
    return int.from_bytes(data[OFFSET : OFFSET + 2], "big")


def acknowledge_each(connected: socket.socket) -> list[int]:
    identifiers = []
    while (identifier := read_identifier(connected)) is not None:
        identifiers.append(identifier)
        connected.sendall(puback(identifier))
    return identifiers


def read_flood(connected: socket.socket) -> tuple[int, bytes]:
    """Count QoS 0 messages up to what is not one, answer that as a PINGREQ, and go on."""
    count = 0
    while (first := read_exactly(connected, 2)) is not None:
        if first == packets.PINGREQ:
            connected.sendall(PINGRESP)
            continue
        rest = read_exactly(connected, len(QOS0) - 2)
        assert first + (rest or b"") == QOS0
        count += 1
    return count, first or b""


def qos1_load(sockets: list[socket.socket], window: int) -> MqttLoad:
    return MqttLoad(sockets, [QOS1] * len(sockets), window, identifier_offset=OFFSET)


@pytest.mark.parametrize("window", [1, 3, 64])
def test_qos1_sends_every_message_once_with_consecutive_identifiers(window: int) -> None:
    with peers(acknowledge_each, count=3) as (sockets, served):
        load = qos1_load(sockets, window)
        result = load.run(messages=1000, stall_timeout=STALL_TIMEOUT_S)
        load.close()
        seen = [future.result() for future in served]
    assert (result.sent, result.acknowledged, result.errors) == (1000, 1000, {})
    assert sum(map(len, seen)) == 1000
    assert all(identifiers == list(range(1, len(identifiers) + 1)) for identifiers in seen)


def test_qos1_keeps_the_window_and_not_one_more() -> None:
    window = 8
    outstanding = []

    def acknowledge_when_full(connected: socket.socket) -> None:
        for start in range(1, 81, window):
            assert [read_identifier(connected) for _ in range(window)] == list(range(start, start + window))
            connected.settimeout(0.02)
            with pytest.raises(TimeoutError):
                connected.recv(1)
            connected.settimeout(STALL_TIMEOUT_S)
            outstanding.append(window)
            connected.sendall(b"".join(map(puback, range(start, start + window))))

    with peers(acknowledge_when_full) as (sockets, served):
        load = qos1_load(sockets, window)
        result = load.run(messages=10 * window, stall_timeout=STALL_TIMEOUT_S)
        served[0].result()
    assert result.acknowledged == 10 * window
    assert len(outstanding) == 10


def test_packet_identifiers_wrap_past_65535_and_skip_0() -> None:
    with peers(acknowledge_each) as (sockets, served):
        load = qos1_load(sockets, 64)
        result = load.run(messages=65_600, stall_timeout=STALL_TIMEOUT_S)
        load.close()
        identifiers = served[0].result()
    assert result.acknowledged == 65_600
    assert identifiers == [*range(1, 65_536), *range(1, 66)]


def test_acknowledgements_may_arrive_byte_by_byte() -> None:
    def dribble(connected: socket.socket) -> None:
        for identifier in range(1, 21):
            assert read_identifier(connected) == identifier
            for byte in puback(identifier):
                connected.sendall(bytes([byte]))

    with peers(dribble) as (sockets, _):
        result = qos1_load(sockets, 4).run(messages=20, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (20, {})


def test_runs_follow_each_other_on_the_same_connections() -> None:
    with peers(acknowledge_each, count=2) as (sockets, _):
        load = qos1_load(sockets, 5)
        for messages in (1, 7, 100):
            assert load.run(messages=messages, stall_timeout=STALL_TIMEOUT_S).acknowledged == messages


def test_a_run_of_so_many_seconds_ends_with_everything_acknowledged() -> None:
    with peers(acknowledge_each, count=2) as (sockets, served):
        load = qos1_load(sockets, 16)
        result = load.run(seconds=0.1, stall_timeout=STALL_TIMEOUT_S)
        load.close()
        seen = Counter(len(future.result()) for future in served)
    assert result.sent == result.acknowledged == sum(length * count for length, count in seen.items()) > 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (puback(2), "wrong identifier"),
        (puback(0), "wrong identifier"),
        (puback(1) + puback(1), "wrong identifier"),
        (puback(1) + puback(2) + puback(3) + puback(4) + puback(5) + puback(6), "wrong identifier"),
        (b"\x40\x03\x00\x01", "malformed response"),
        (b"\x20\x02\x00\x00", "unexpected packet"),
        (PINGRESP, "unexpected packet"),
        (b"", "closed by peer"),
    ],
)
def test_a_wrong_answer_is_counted_and_ends_only_that_connection(answer: bytes, error: str) -> None:
    window = 4
    misled: list[socket.socket] = []

    def one_misbehaves(connected: socket.socket) -> None:
        first = [read_identifier(connected) for _ in range(window)]
        if not misled:
            misled.append(connected)
            connected.sendall(answer)
            if answer:
                while connected.recv(65536):
                    pass
            return
        for identifier in first:
            assert identifier is not None
            connected.sendall(puback(identifier))
        acknowledge_each(connected)

    with peers(one_misbehaves, count=2) as (sockets, _):
        load = qos1_load(sockets, window)
        result = load.run(seconds=0.1, stall_timeout=STALL_TIMEOUT_S)
        assert result.errors == {error: 1}
        assert 0 < result.acknowledged <= result.sent
        again = load.run(messages=10, stall_timeout=STALL_TIMEOUT_S)
    assert (again.sent, again.acknowledged, again.errors) == (10, 10, {})


def test_no_connection_left_is_an_error_of_the_next_run() -> None:
    with peers(read_identifier) as (sockets, _):
        load = qos1_load(sockets, 1)
        assert load.run(messages=10, stall_timeout=STALL_TIMEOUT_S).errors == {"closed by peer": 1}
        with pytest.raises(BenchError, match="every connection"):
            load.run(messages=10, stall_timeout=STALL_TIMEOUT_S)


def test_a_silent_peer_is_a_stall_with_the_counts_in_its_message() -> None:
    def acknowledge_one(connected: socket.socket) -> None:
        assert read_identifier(connected) == 1
        connected.sendall(puback(1))
        while connected.recv(65536):
            pass

    with (
        peers(acknowledge_one) as (sockets, _),
        pytest.raises(BenchError, match=r"1 of 1 connections unfinished, 5 messages sent, 1 acknowledged"),
    ):
        qos1_load(sockets, 4).run(messages=100, stall_timeout=0.2)


def test_qos0_floods_whole_messages_and_ends_with_the_answer_to_its_fence() -> None:
    with peers(read_flood, count=2) as (sockets, served):
        load = MqttLoad(sockets, [QOS0, QOS0], 256, fence=packets.PINGREQ)
        counted = load.run(messages=100_000, stall_timeout=STALL_TIMEOUT_S)
        timed = load.run(seconds=0.1, stall_timeout=STALL_TIMEOUT_S)
        load.close()
        arrived = [future.result() for future in served]
    assert counted.sent == 100_000
    assert counted.acknowledged == timed.acknowledged == 0
    assert counted.errors == timed.errors == {}
    assert sum(count for count, _ in arrived) == counted.sent + timed.sent
    assert all(rest == b"" for _, rest in arrived)


def test_an_answer_before_the_fence_is_not_taken_for_the_fence() -> None:
    def eager(connected: socket.socket) -> None:
        connected.sendall(PINGRESP)
        while connected.recv(65536):
            pass

    with peers(eager) as (sockets, _):
        result = MqttLoad(sockets, [QOS0], 256, fence=packets.PINGREQ).run(
            messages=1_000_000, stall_timeout=STALL_TIMEOUT_S
        )
    assert result.errors == {"unexpected packet": 1}


@pytest.mark.parametrize(
    ("messages", "window", "options"),
    [
        ([], 1, {"identifier_offset": OFFSET}),
        ([QOS1], 0, {"identifier_offset": OFFSET}),
        ([QOS1, QOS1], 1, {"identifier_offset": OFFSET}),
        ([b""], 1, {"identifier_offset": OFFSET}),
        ([QOS1], 65_536, {"identifier_offset": OFFSET}),
        ([QOS1], 1, {"identifier_offset": len(QOS1) - 1}),
        ([QOS1], 1, {"identifier_offset": -1}),
        ([QOS1], 1, {}),
        ([QOS1], 1, {"identifier_offset": OFFSET, "fence": packets.PINGREQ}),
        ([bytes(1 << 20)], 1 << 15, {"identifier_offset": 1}),
    ],
)
def test_arguments_that_would_leave_the_buffers_are_refused(
    messages: list[bytes], window: int, options: dict[str, object]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ValueError, match=r"\w"):
        MqttLoad([ours], messages, window, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("aliased", [False, True])
def test_mqtt_5_has_the_identifier_before_the_properties(aliased: bool) -> None:
    """MQTT 5.0, 3.3.2; with the alias there is no topic."""
    message = packets.publish(1, 1, version="5", aliased=aliased)
    offset = packets.identifier_offset(message, version="5", aliased=aliased)
    properties = bytes.fromhex("03 23 0001") if aliased else b"\0"
    topic = b"" if aliased else packets.BENCH.resource_path(1).encode()
    assert message[2 if aliased else 3 :] == (
        len(topic).to_bytes(2, "big") + topic + b"\0\0" + properties + packets.PAYLOAD
    )
    assert message[offset:].startswith(b"\0\0" + properties)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_puback_of_mqtt_5_may_have_a_reason_code_and_properties(step: int) -> None:
    """MQTT 5.0, 3.4.2: no matching subscribers is a success, an unspecified error is not."""
    answers = bytes.fromhex("40020001 4003000210 40040003 8000 400b0004 80 07 1f 0004 6e6f6e65 40020005")

    def answer(connected: socket.socket) -> None:
        for identifier in range(1, 6):
            assert read_identifier(connected) == identifier
        for at in range(0, len(answers), step):
            connected.sendall(answers[at : at + step])

    with peers(answer) as (sockets, _):
        load = MqttLoad(sockets, [QOS1], 5, identifier_offset=OFFSET, reason_codes=True)
        result = load.run(messages=5, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (5, {"refused": 2})


def test_a_reason_code_in_mqtt_3_1_1_is_malformed() -> None:
    def answer(connected: socket.socket) -> None:
        read_identifier(connected)
        connected.sendall(bytes.fromhex("4003000110"))

    with peers(answer) as (sockets, _):
        result = qos1_load(sockets, 1).run(messages=1, stall_timeout=STALL_TIMEOUT_S)
    assert result.errors == {"malformed response": 1}


@pytest.mark.parametrize(
    "options", [{"aliased": True}, {"aliased": True, "mqtt_version": "5", "answered": True}]
)
def test_an_alias_needs_mqtt_5_and_no_request_id(options: dict[str, object]) -> None:
    with pytest.raises(BenchError, match="a topic alias needs MQTT 5"):
        LoadSpec("mqtt", 1, **options)  # type: ignore[arg-type]
