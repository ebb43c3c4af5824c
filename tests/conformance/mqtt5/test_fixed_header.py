"""The fixed header, the order of packets, and packets that only the other side sends: MQTT 5.0, chapter 2."""

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from tests.support.mqtt5.peer import mqtt5_client, mqtt5_peer

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82

RESERVED: list[Packet] = [
    Puback(1), Pubrec(1), Pubrel(1), Pubcomp(1), Subscribe(1, (("a", 0),)), Unsubscribe(1, ("a",)), Pingreq(),
    Disconnect(), Auth(),
]  # fmt: skip


@pytest.mark.parametrize("packet", RESERVED, ids=lambda packet: type(packet).__name__)
@pytest.mark.parametrize("wrong", [0x01, 0x02, 0x04, 0x08])
async def test_reserved_flags(shared_gateway: GatewayProcess, packet: Packet, wrong: int) -> None:
    """[MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]"""
    encoded = codec.encode(packet)
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes([encoded[0] ^ wrong]) + encoded[1:])
        # An AUTH is a protocol error whatever its flags are.
        assert await peer.refusal() in {MALFORMED, PROTOCOL_ERROR if isinstance(packet, Auth) else MALFORMED}


@pytest.mark.parametrize("wrong", [0x01, 0x02, 0x04, 0x08])
async def test_reserved_flags_of_connect(shared_gateway: GatewayProcess, wrong: int) -> None:
    """[MQTT-2.1.3-1] [MQTT-3.1.0-1]: such a first byte is not that of a CONNECT."""
    encoded = codec.encode(Connect())
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes([encoded[0] ^ wrong]) + encoded[1:])
        assert await peer.refusal() in (None, MALFORMED)


@pytest.mark.parametrize(
    "vector",
    [
        "c0 80 00",  # PINGREQ, its length in two bytes
        "c0 80 80 00",
        "e0 81 00 00",
        "a2 86 00 0001 00 0001 61",
    ],
)
async def test_a_remaining_length_of_more_bytes_than_it_needs(
    shared_gateway: GatewayProcess, vector: str
) -> None:
    """[MQTT-1.5.5-1]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.refusal() == MALFORMED


async def test_a_remaining_length_of_more_than_four_bytes(shared_gateway: GatewayProcess) -> None:
    """[MQTT-4.13.1-1], 1.5.5."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex("30 ff ff ff ff 01"))
        assert await peer.refusal() == MALFORMED


async def test_packet_type_0(shared_gateway: GatewayProcess) -> None:
    """[MQTT-4.13.1-1], 2.1.2: it is reserved."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex("00 00"))
        assert await peer.refusal() in (MALFORMED, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "packet",
    [Connack(), Suback(1, (0,)), Unsuback(1, (0,)), Pingresp()],
    ids=lambda packet: type(packet).__name__,
)
async def test_packets_of_a_server(shared_gateway: GatewayProcess, packet: Packet) -> None:
    """[MQTT-4.13.1-1], 2.1.2, table 2-1: a client does not send them."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(packet)
        assert await peer.refusal() == PROTOCOL_ERROR


@pytest.mark.parametrize(
    "packet",
    [Connack(), Pingreq(), Subscribe(1, (("a", 0),)), Disconnect(), Auth(0x18), Pubrel(1)],
    ids=lambda packet: type(packet).__name__,
)
async def test_the_first_packet_is_connect(shared_gateway: GatewayProcess, packet: Packet) -> None:
    """[MQTT-3.1.0-1] [MQTT-3.14.0-1]: what is no CONNECT is not answered."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(packet, Connect())
        assert await peer.until_closed() == []


async def test_a_second_connect(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.1.0-2] [MQTT-3.2.0-2]: there is one CONNACK."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect("again"), Pingreq())
        assert await peer.until_disconnect() == Disconnect(PROTOCOL_ERROR)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect("again"), Connect("again"))
        received = await peer.until_closed()
        assert isinstance(received[0], Connack)
        assert [type(packet) for packet in received[1:]] == [Disconnect]


async def test_pingreq_is_answered(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.12.4-1]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Pingreq(), Pingreq())
        assert [await peer.receive(), await peer.receive()] == [Pingresp(), Pingresp()]


@pytest.mark.parametrize(
    "vector",
    [
        "40 01 00",  # PUBACK with half a packet identifier
        "40 00",
        "62 01 00",
        "82 02 0001",  # SUBSCRIBE without properties
        "82 03 0001 00",  # ... without a filter
        "82 06 0001 00 0001 61",  # ... without options
        "82 06 0001 00 0002 61",
        "a2 02 0001",
        "a2 03 0001 00",
        "a2 05 0001 00 0001",
        "c0 01 00",  # PINGREQ with a body
        "32 05 0001 61 0001",  # PUBLISH without properties
        "32 04 0001 61 00",
        "30 00",
        "30 03 0001 61",
        "e0 02 00 05",  # DISCONNECT with a part of its properties
        "e0 03 00 00 00",  # ... with more than them
        "40 05 0001 00 00 00",
        "40 04 0001 00 05",
    ],
)
async def test_missing_and_superfluous_bytes(shared_gateway: GatewayProcess, vector: str) -> None:
    """[MQTT-4.13.1-1] [MQTT-2.2.2-1] [MQTT-3.8.3-2] [MQTT-3.10.3-2]: each is malformed or a protocol error."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.refusal() in (MALFORMED, PROTOCOL_ERROR)
