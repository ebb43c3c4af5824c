"""Loads whose messages the extension answers: MQTT requests, and bare requests over NATS."""

import socket

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench import packets
from kaa_bench.load.mqtt import REQUEST_ID_DIGITS, MqttRequestLoad
from kaa_bench.load.nats import NatsRequestLoad

from tests.unit.bench.load.peer import STALL_TIMEOUT_S, Serve, peers, read_exactly

REQUEST = packets.request(1)
OFFSET = packets.request_id_offset(REQUEST)
TOPIC = packets.BENCH.resource_path(1)
NATS_REQUEST = packets.nats_request(1)


def mqtt_load(sockets: list[socket.socket], window: int = 4) -> MqttRequestLoad:
    return MqttRequestLoad(sockets, [REQUEST] * len(sockets), window, request_id_offset=OFFSET)


def read_request_id(connected: socket.socket) -> bytes | None:
    data = read_exactly(connected, len(REQUEST))
    return None if data is None else data[OFFSET : OFFSET + REQUEST_ID_DIGITS]


def response(request_id: bytes, end: str = "status", payload: bytes = b"", qos: int = 0) -> bytes:
    return mqtt.encode(mqtt.Publish(f"{TOPIC}/{request_id.decode()}/{end}", payload, qos, packet_id=qos))


def answering(
    end: str = "status", piece: int = 10_000, payload: bytes = b"", qos: int = 0
) -> Serve[list[bytes]]:
    """Answers each request, in pieces of so many bytes."""

    def serve(connected: socket.socket) -> list[bytes]:
        seen = []
        while (request_id := read_request_id(connected)) is not None:
            seen.append(request_id)
            data = response(request_id, end, payload, qos)
            for start in range(0, len(data), piece):
                connected.sendall(data[start : start + piece])
        return seen

    return serve


def test_a_request_is_a_publish_with_a_request_id_and_the_payload() -> None:
    packet, used = mqtt.decode(REQUEST)
    assert packet == mqtt.Publish(f"{TOPIC}/{packets.REQUEST_ID}", packets.PAYLOAD)
    assert used == len(REQUEST)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_every_request_has_an_id_of_its_own_and_its_response(piece: int) -> None:
    with peers(answering(piece=piece, payload=b"x" * 200), count=2) as (sockets, served):
        load = mqtt_load(sockets)
        result = load.run(messages=100, stall_timeout=STALL_TIMEOUT_S)
        load.close()
        seen = [future.result() for future in served]
    assert (result.sent, result.acknowledged, result.errors) == (100, 100, {})
    for identifiers in seen:
        assert isinstance(identifiers, list)
        assert [int(identifier) - 10_000_000 for identifier in identifiers] == list(range(len(identifiers)))


def test_an_error_response_is_an_answer_and_an_error() -> None:
    with peers(answering("error")) as (sockets, _):
        result = mqtt_load(sockets).run(messages=5, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (5, {"error response": 5})


def say(data: bytes) -> Serve[None]:
    def serve(connected: socket.socket) -> None:
        read_request_id(connected)
        connected.sendall(data)
        connected.recv(65536)

    return serve


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (response(b"10000001"), "wrong identifier"),
        (response(b"10000000", "other"), "unexpected packet"),
        (response(b"10000000", qos=1), "unexpected packet"),
        (b"\x40\x02\x00\x01", "unexpected packet"),
        (b"\x30\x03\x00\x09x", "malformed response"),
        (b"\x30\xff\xff\xff\xff\x01", "malformed response"),
        (response(b"10000000", payload=b"x" * 2048), "malformed response"),
    ],
)
def test_what_is_not_the_response_ends_the_connection(data: bytes, failure: str) -> None:
    with peers(say(data)) as (sockets, _):
        result = mqtt_load(sockets, 1).run(messages=1, stall_timeout=STALL_TIMEOUT_S)
    assert (result.acknowledged, result.errors) == (0, {failure: 1})


def test_a_request_id_lies_in_the_message() -> None:
    with peers(lambda _: None) as (sockets, _), pytest.raises(ValueError, match="outside the message"):
        MqttRequestLoad(sockets, [REQUEST], 1, request_id_offset=len(REQUEST) - 2)


# ---------------------------------------------------------------- bare NATS


def nats_load(sockets: list[socket.socket], window: int = 4) -> NatsRequestLoad:
    return NatsRequestLoad(sockets, [NATS_REQUEST] * len(sockets), window)


@pytest.mark.parametrize("piece", [1, 5, 10_000])
def test_replies_are_counted_and_pings_answered_however_the_stream_is_split(piece: int) -> None:
    pongs = []

    def serve(connected: socket.socket) -> None:
        connected.sendall(b"PING\r\n")
        reply = b"MSG inbox 1 12\r\nMSG x 1 3\r\n.\r\n"
        for _ in range(20):
            data = read_exactly(connected, len(NATS_REQUEST))
            while data is not None and data.startswith(b"PONG\r\n"):
                pongs.append(data[:6])
                data = data[6:] + (read_exactly(connected, 6) or b"")
            assert data == NATS_REQUEST
            for start in range(0, len(reply), piece):
                connected.sendall(reply[start : start + piece])

    with peers(serve) as (sockets, served):
        result = nats_load(sockets).run(messages=20, stall_timeout=STALL_TIMEOUT_S)
        served[0].result()
    assert (result.acknowledged, result.errors) == (20, {})
    assert pongs == [b"PONG\r\n"]


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"-ERR 'no'\r\n", "unexpected packet"),
        (b"MSG inbox 1 \r\n", "malformed response"),
        (b"MSG inbox 1 123456789\r\n", "malformed response"),
        (b"INFO " + b"x" * 2000 + b"\r\n", "malformed response"),
        (b"MSG inbox 1 1\r\nx\r\nMSG inbox 1 1\r\nx\r\n", "unexpected packet"),
    ],
)
def test_what_is_no_reply_ends_the_connection(data: bytes, failure: str) -> None:
    def serve(connected: socket.socket) -> None:
        read_exactly(connected, len(NATS_REQUEST))
        connected.sendall(data)
        connected.recv(65536)

    with peers(serve) as (sockets, _):
        result = nats_load(sockets, 1).run(messages=1, stall_timeout=STALL_TIMEOUT_S)
    assert result.errors == {failure: 1}
