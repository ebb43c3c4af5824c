"""MQTT over WebSocket, frame by frame: what RFC 6455 and MQTT 3.1.1 section 6 ask for, and every violation."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.mqtt_packets import Connect, Pingreq, encode

from tests.support.encrypted import EncryptedGateway
from tests.support.nats import NatsServer, free_port
from tests.support.websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WebSocketPeer,
    frame,
    request,
    websocket_peer,
)

CONNECT = encode(Connect("over-websocket", keep_alive=0))
CONNACK = b"\x20\x02\x00\x00"
PINGRESP = b"\xd0\x00"
FRAME_SIZE_MAX = 4096


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer) -> Iterator[EncryptedGateway]:
    websocket = {"enabled": True, "port": free_port(), "max-frame-size": FRAME_SIZE_MAX}
    with EncryptedGateway(shared_nats.url, {"mqtt": {"websocket": websocket}}) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


async def closed_with(peer: WebSocketPeer) -> int | None:
    """The code of the Close frame that comes next, after which the connection ends; None if it has none."""
    received = await peer.receive()
    assert received is not None
    opcode, payload = received
    assert opcode == CLOSE
    assert await peer.receive() is None
    return int.from_bytes(payload[:2], "big") if payload else None


class TestUpgrade:
    async def test_accepted(self, gateway: EncryptedGateway) -> None:
        async with websocket_peer(gateway.ws_port, upgraded=False) as peer:
            await peer.send(
                request(Sec_WebSocket_Extensions="permessage-deflate", Origin="https://other.example")
            )
            status, fields = await peer.head()
            assert status == 101
            assert fields["Upgrade"].lower() == "websocket"
            assert fields["Connection"].lower() == "upgrade"
            assert fields["Sec-WebSocket-Accept"] == ACCEPT
            assert fields["Sec-WebSocket-Protocol"] == "mqtt"
            assert "Sec-WebSocket-Extensions" not in fields
            await peer.send(frame(BINARY, CONNECT))
            assert await peer.receive() == (BINARY, CONNACK)

    async def test_byte_by_byte_with_the_first_frame_behind_it(self, gateway: EncryptedGateway) -> None:
        async with websocket_peer(gateway.ws_port, upgraded=False) as peer:
            await peer.send(request() + frame(BINARY, CONNECT), pieces=True)
            assert (await peer.head())[0] == 101
            assert await peer.receive() == (BINARY, CONNACK)

    async def test_in_one_piece_with_the_first_frame_behind_it(self, gateway: EncryptedGateway) -> None:
        async with websocket_peer(gateway.ws_port, upgraded=False) as peer:
            await peer.send(request() + frame(BINARY, CONNECT))
            assert (await peer.head())[0] == 101
            assert await peer.receive() == (BINARY, CONNACK)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (request("GET /ws?device=1 HTTP/1.1"), None),
            (request("GET /mqtt HTTP/1.1"), None),
            (request("GET / HTTP/1.1"), None),
            (request("GET http://localhost/ws?device=1 HTTP/1.1"), None),  # RFC 9112 section 3.2.2
            (request("GET HTTP://localhost HTTP/1.1"), None),
            (request(Sec_WebSocket_Protocol="chat, mqttv3.1, mqtt"), None),
            (request(Upgrade="WebSocket", Connection="keep-alive, Upgrade"), None),
        ],
    )
    async def test_variants_that_are_accepted(
        self, gateway: EncryptedGateway, data: bytes, reason: str | None
    ) -> None:
        async with websocket_peer(gateway.ws_port, upgraded=False) as peer:
            await peer.send(data)
            assert (await peer.head())[0] == 101

    @pytest.mark.parametrize(
        ("data", "status", "reason"),
        [
            (request("GET /other HTTP/1.1"), 404, "ws_path"),
            (request("GET http://localhost/other HTTP/1.1"), 404, "ws_path"),
            (request("GET /ws/ HTTP/1.1"), 404, "ws_path"),
            (request("POST /ws HTTP/1.1"), 405, "ws_method"),
            (request("GET /ws HTTP/1.0"), 400, "ws_malformed_request"),
            (request(Host=None), 400, "ws_malformed_request"),
            (request(Upgrade=None, Connection=None), 426, "ws_no_upgrade"),
            (request(Upgrade="h2c"), 426, "ws_no_upgrade"),
            (request(Sec_WebSocket_Version="8"), 426, "ws_version"),
            (request(Sec_WebSocket_Key=None), 400, "ws_key"),
            (request(Sec_WebSocket_Key="c2hvcnQ="), 400, "ws_key"),
            (request(Sec_WebSocket_Protocol=None), 400, "ws_subprotocol"),
            (request(Sec_WebSocket_Protocol="chat"), 400, "ws_subprotocol"),
            (request(Cookie="x" * 9000), 431, "ws_header_too_large"),
            (CONNECT + b"\r\n\r\n", 400, "ws_malformed_request"),
        ],
    )
    async def test_refused(self, gateway: EncryptedGateway, data: bytes, status: int, reason: str) -> None:
        before = gateway.count("events", "refused", reason)
        async with websocket_peer(gateway.ws_port, upgraded=False) as peer:
            await peer.send(data)
            answered, fields = await peer.head()
            assert answered == status
            assert fields["Connection"] == "close"
            if status == 426:
                assert fields["Upgrade"] == "websocket"
            assert str(status).encode() in await peer.rest()
        assert gateway.count("events", "refused", reason) == before + 1


class TestFrames:
    async def test_frames_are_not_packets(self, gateway: EncryptedGateway) -> None:
        """MQTT 3.1.1 section 6.0: a packet may be in several frames, and a frame may hold several packets."""
        async with websocket_peer(gateway.ws_port) as peer:
            for byte in CONNECT:
                await peer.send(frame(BINARY, bytes([byte])))
            assert await peer.receive() == (BINARY, CONNACK)
            await peer.send(frame(BINARY, encode(Pingreq()) * 3))
            assert await peer.receive() == (BINARY, PINGRESP * 3)

    async def test_a_fragmented_message_with_control_frames_within(self, gateway: EncryptedGateway) -> None:
        async with websocket_peer(gateway.ws_port) as peer:
            await peer.send(
                frame(BINARY, CONNECT[:5], final=False)
                + frame(PING, b"within")
                + frame(CONTINUATION, b"", final=False)
                + frame(PONG, b"unasked")
                + frame(CONTINUATION, CONNECT[5:]),
                pieces=True,
            )
            assert await peer.receive() == (PONG, b"within")
            assert await peer.receive() == (BINARY, CONNACK)

    @pytest.mark.parametrize("size", [0, 125, 126, 127, 4000, FRAME_SIZE_MAX])
    async def test_sizes(self, gateway: EncryptedGateway, size: int) -> None:
        async with websocket_peer(gateway.ws_port) as peer:
            await peer.send(frame(BINARY, CONNECT))
            assert await peer.receive() == (BINARY, CONNACK)
            await peer.send(frame(BINARY, (encode(Pingreq()) * size)[:size]))
            await peer.send(frame(BINARY, b"\x00" * 0 if size % 2 == 0 else b"\x00"))
            received = b""
            while len(received) < 2 * ((size + 1) // 2):
                answer = await peer.receive()
                assert answer is not None
                received += answer[1]

    async def test_random_pieces(self, gateway: EncryptedGateway) -> None:
        """Whatever the frames and the segments are, the packets are the same."""
        chance = random.Random(4)
        stream = CONNECT + encode(Pingreq()) * 500
        data = b""
        while stream:
            size = chance.choice([1, 2, 7, 130, 300])
            data += frame(BINARY, stream[:size])
            stream = stream[size:]
        async with websocket_peer(gateway.ws_port) as peer:
            while data:
                size = chance.choice([1, 3, 11, 200])
                await peer.send(data[:size])
                data = data[size:]
            received = b""
            while len(received) < 4 + 1000:
                answer = await peer.receive()
                assert answer is not None
                received += answer[1]
            assert received == CONNACK + PINGRESP * 500

    @pytest.mark.parametrize(
        ("data", "code", "reason"),
        [
            (frame(TEXT, b"text"), 1003, "ws_text_frame"),
            (frame(BINARY, b"", masked=False), 1002, "ws_not_masked"),
            (frame(BINARY, b"", reserved=4), 1002, "ws_reserved_bits"),
            (frame(0x3), 1002, "ws_unknown_opcode"),
            (frame(0xB), 1002, "ws_unknown_opcode"),
            (frame(PING, b"x" * 126), 1002, "ws_bad_control_frame"),
            (frame(PING, b"", final=False), 1002, "ws_bad_control_frame"),
            (frame(CONTINUATION, b"x"), 1002, "ws_fragmentation"),
            (frame(BINARY, b"", final=False) + frame(BINARY, b""), 1002, "ws_fragmentation"),
            (frame(BINARY, b"x", length_size=2), 1002, "ws_overlong_length"),
            (frame(BINARY, b"x" * 200, length_size=8), 1002, "ws_overlong_length"),
            (b"\x82\xff\x80" + bytes(11), 1002, "ws_overlong_length"),
            (frame(BINARY, b"x" * (FRAME_SIZE_MAX + 1)), 1009, "ws_frame_too_large"),
            (frame(BINARY, b"\xe0\x00"), 1002, "mqtt_first_packet_not_connect"),
        ],
    )
    async def test_violations(self, gateway: EncryptedGateway, data: bytes, code: int, reason: str) -> None:
        """They end the connection, after what came before them was answered."""
        before = gateway.count("events", "closed", reason)
        async with websocket_peer(gateway.ws_port) as peer:
            if reason != "mqtt_first_packet_not_connect":
                await peer.send(frame(BINARY, CONNECT))
                assert await peer.receive() == (BINARY, CONNACK)
                data = frame(BINARY, encode(Pingreq())) + data
            await peer.send(data)
            if reason != "mqtt_first_packet_not_connect":
                assert await peer.receive() == (BINARY, PINGRESP)
            assert await closed_with(peer) == code
        assert gateway.count("events", "closed", reason) == before + 1


class TestClose:
    @pytest.mark.parametrize(
        ("payload", "code"),
        [
            (b"", None),
            (b"\x03\xe8", 1000),
            (b"\x0f\xa0bye", 4000),
            (b"\x03", 1002),
            (b"\x03\xed", 1002),
            (b"\x13\x88", 1002),
            (b"\x03\xe8\xff", 1007),
        ],
    )
    async def test_is_answered(self, gateway: EncryptedGateway, payload: bytes, code: int | None) -> None:
        async with websocket_peer(gateway.ws_port) as peer:
            await peer.send(frame(CLOSE, payload))
            assert await closed_with(peer) == code

    async def test_disconnect_is_a_normal_end(self, gateway: EncryptedGateway) -> None:
        async with websocket_peer(gateway.ws_port) as peer:
            await peer.send(frame(BINARY, CONNECT + encode(mqtt.Disconnect())))
            assert await peer.receive() == (BINARY, CONNACK)
            assert await closed_with(peer) == 1000

    async def test_nothing_is_taken_after_it(self, gateway: EncryptedGateway) -> None:
        async with websocket_peer(gateway.ws_port) as peer:
            await peer.send(frame(CLOSE) + frame(BINARY, CONNECT))
            assert await closed_with(peer) is None


async def test_connections_that_never_ask_are_ended(shared_nats: NatsServer) -> None:
    websocket = {"enabled": True, "port": free_port(), "handshake-timeout": 0.1}
    with EncryptedGateway(shared_nats.url, {"mqtt": {"websocket": websocket}}) as gateway:
        async with websocket_peer(gateway.ws_port, upgraded=False) as silent:
            await silent.send(b"GET /ws HTTP/1.1\r\n")
            assert await silent.rest() == b""
        assert gateway.count("events", "closed", "ws_handshake_timeout") == 1


async def test_shutdown_says_that_the_server_goes_away(shared_nats: NatsServer) -> None:
    websocket = {"enabled": True, "port": free_port()}
    with EncryptedGateway(shared_nats.url, {"mqtt": {"websocket": websocket}}) as gateway:
        async with websocket_peer(gateway.ws_port) as peer:
            await peer.send(frame(BINARY, CONNECT))
            assert await peer.receive() == (BINARY, CONNACK)
            stopping = asyncio.create_task(asyncio.to_thread(gateway.stop))
            assert await closed_with(peer) == 1001
            await stopping


class TestClosing:
    """RFC 6455 sections 5.5.1 and 7.1: both Close frames, then TCP."""

    async def test_the_server_waits_for_the_close_frame_of_a_client_that_disconnects(
        self, gateway: EncryptedGateway
    ) -> None:
        async with websocket_peer(gateway.ws_port) as peer:
            await peer.send(frame(BINARY, CONNECT))
            assert await peer.receive() == (BINARY, CONNACK)
            await peer.send(frame(BINARY, encode(mqtt.Disconnect())))
            received = await peer.receive()
            assert received is not None
            assert received[0] == CLOSE
            await peer.send(frame(PING) + frame(BINARY, b"late"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await peer.receive()
            await peer.send(frame(CLOSE, received[1]))
            assert await peer.receive() is None

    async def test_acknowledgements_come_before_the_close_frame(self, gateway: EncryptedGateway) -> None:
        async with websocket_peer(gateway.ws_port) as peer:
            publish = encode(mqtt.Publish("kp1/unknown/x/t", b"", 1, 7))
            await peer.send(frame(BINARY, CONNECT) + frame(BINARY, publish) + frame(CLOSE, b"\x03\xe8"))
            answers = b""
            while (received := await peer.receive()) is not None and received[0] == BINARY:
                answers += received[1]
            assert received == (CLOSE, b"\x03\xe8")
            assert b"\x40\x02\x00\x07" in answers
            assert await peer.receive() is None
