"""WebSocket frames, damaged or made up, against a running gateway, which is asked for nothing but to go on.

Whatever comes, it logs no unexpected error, ends the connection with a Close frame or none, sends only whole frames
of a server, and serves its other connections.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Connect, Pingreq, Publish, encode

from tests.support.encrypted import EncryptedGateway
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, request

CASES = 1500
SEED = 20261124
TIMEOUT_S = 20.0
CONNECT = encode(Connect("fuzz", keep_alive=0))
FROM_SERVER = (BINARY, CLOSE, PONG)


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer) -> Iterator[EncryptedGateway]:
    websocket = {"enabled": True, "port": free_port(), "max-frame-size": 4096}
    with EncryptedGateway(shared_nats.url, {"mqtt": {"websocket": websocket}}) as gateway:
        yield gateway
        assert gateway.running
        assert "Traceback" not in gateway.log, gateway.log


def exchange(port: int, *pieces: bytes) -> bytes:
    """All that comes until the server ends the connection, after we have ended our direction."""
    received = b""
    with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as connection:
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
    return received


def made_up(chance: random.Random) -> bytes:
    """Frames that mean something, in an order that may not."""
    packets = [
        CONNECT,
        encode(Pingreq()),
        encode(Publish("kp1/app_v1/dcx/fuzz/json/1", b"[1]", 1, 1)),
        b"",
        b"\xff",
    ]
    frames = []
    for _ in range(chance.randrange(1, 8)):
        opcode = chance.choice([BINARY, BINARY, BINARY, CONTINUATION, PING, PONG, CLOSE, TEXT, 0x3])
        payload = chance.choice(packets) * chance.choice([1, 1, 1, 20])
        frames.append(
            frame(
                opcode,
                payload,
                final=chance.random() < 0.8,
                masked=chance.random() < 0.97,
                reserved=0 if chance.random() < 0.97 else 4,
                length_size=8 if chance.random() < 0.05 else None,
            )
        )
    return b"".join(frames)


def damaged(chance: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(chance.randrange(4)):
        result[chance.randrange(len(result))] = chance.randrange(256)
    if chance.random() < 0.2:
        del result[chance.randrange(len(result)) :]
    return bytes(result)


def frames_of(data: bytes) -> list[int]:
    """The opcodes of a server's frames, of which the last may be cut off."""
    opcodes = []
    while len(data) >= 2:
        assert data[0] & 0x70 == 0
        assert data[1] < 128
        opcodes.append(data[0] & 0x0F)
        size, at = data[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        data = data[at + size :]
    return opcodes


def test_frames(gateway: EncryptedGateway) -> None:
    chance = random.Random(SEED)
    for case in range(CASES):
        data = frame(BINARY, CONNECT) + made_up(chance)
        if chance.random() < 0.5:
            data = damaged(chance, data)
        cut = chance.randrange(len(data) + 1)
        received = exchange(gateway.ws_port, request(), data[:cut], data[cut:])
        # A connection that is closed with bytes unread is reset, which may overtake all that was sent.
        head, _, frames = received.partition(b"\r\n\r\n")
        assert not head or head.startswith(b"HTTP/1.1 101"), (case, data.hex())
        opcodes = frames_of(frames)
        assert set(opcodes) <= set(FROM_SERVER), (case, data.hex())
        assert CLOSE not in opcodes[:-1], (case, data.hex())


def test_requests(gateway: EncryptedGateway) -> None:
    chance = random.Random(SEED)
    for case in range(CASES // 3):
        data = damaged(chance, request())
        received = exchange(gateway.ws_port, data)
        assert received == b"" or received.startswith(b"HTTP/1.1 "), (case, data.hex())
    assert exchange(gateway.ws_port, request()).startswith(b"HTTP/1.1 101")
