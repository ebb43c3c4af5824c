"""MQTT 5 packets of the gateway's codec against those of the tests' own codec."""

import pytest
from kaa_bench import mqtt_packets as ours
from kaa_gateway.errors import ProtocolError

from tests.support.mqtt5 import codec, packets
from tests.support.mqtt5.properties import Property

P = Property
LEVEL = ours.LEVEL_5


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (ours.Connect("id", level=LEVEL), packets.Connect("id", keep_alive=60)),
        (
            ours.Connect("", False, 0, ours.Will("w", b"m", 1), "user", b"password", LEVEL),
            packets.Connect("", False, 0, packets.Will("w", b"m", 1), "user", b"password"),
        ),
        (ours.Publish("topic", b"payload"), packets.Publish("topic", b"payload")),
        (ours.Publish("topic", b"", 2, 7, True), packets.Publish("topic", b"", 2, 7, True)),
        (
            ours.Publish("", b"x", 1, 7, topic_alias=3, response_topic="r", correlation_data=b"\0\xff"),
            packets.Publish(
                "",
                b"x",
                1,
                7,
                properties=((P.TOPIC_ALIAS, 3), (P.RESPONSE_TOPIC, "r"), (P.CORRELATION_DATA, b"\0\xff")),
            ),
        ),
        (ours.Puback(9), packets.Puback(9)),
        (ours.Pubrel(9), packets.Pubrel(9)),
        (ours.Subscribe(1, (("a/#", 1), ("b", 2))), packets.Subscribe(1, (("a/#", 1), ("b", 2)))),
        (ours.Unsubscribe(1, ("a", "b")), packets.Unsubscribe(1, ("a", "b"))),
        (ours.Pingreq(), packets.Pingreq()),
        (ours.Disconnect(), packets.Disconnect()),
    ],
)
def test_a_client_s_packets(mine: "ours.Packet", theirs: packets.Packet) -> None:
    encoded = ours.encode(mine, LEVEL)
    assert encoded == codec.encode(theirs)
    assert ours.decode(encoded, LEVEL) == (mine, len(encoded))
    for size in range(len(encoded)):
        assert ours.decode(encoded[:size], LEVEL) == (None, 0)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (
            ours.Connack(True, 0, 64),
            packets.Connack(True, 0, properties=((P.RETAIN_AVAILABLE, 0), (P.TOPIC_ALIAS_MAXIMUM, 64))),
        ),
        (ours.Connack(False, 0x87), packets.Connack(False, 0x87)),
        (ours.Puback(7), packets.Puback(7)),
        (ours.Puback(7, 0x80), packets.Puback(7, 0x80, properties=((P.REASON_STRING, "why"),))),
        (ours.Pubrec(7), packets.Pubrec(7)),
        (ours.Pubcomp(7), packets.Pubcomp(7, 0x92)),
        (ours.Suback(7, (0, 1, 0x9E)), packets.Suback(7, (0, 1, 0x9E))),
        (ours.Unsuback(7), packets.Unsuback(7, (0, 0x11))),
        (ours.Disconnect(0x8B), packets.Disconnect(0x8B)),
        (
            ours.Publish("t", b"x", correlation_data=b"id", status_code=404),
            packets.Publish(
                "t", b"x", properties=((P.CORRELATION_DATA, b"id"), (P.USER_PROPERTY, ("statusCode", "404")))
            ),
        ),
        (
            ours.Publish("t", b"x"),
            packets.Publish("t", b"x", properties=((P.USER_PROPERTY, ("statusCode", "many")),)),
        ),
    ],
)
def test_a_server_s_packets(mine: "ours.Packet", theirs: packets.Packet) -> None:
    encoded = codec.encode(theirs)
    assert ours.decode(encoded, LEVEL) == (mine, len(encoded))


@pytest.mark.parametrize(
    "vector",
    [
        "20 03 02 00 00",
        "20 06 00 00 03 21 0000",
        "20 09 00 00 06 21 0001 21 0001",
        "90 03 0001 00",
        "90 02 0001",
        "b0 03 0001 00",
        "40 03 0001 01",
        "30 03 0001 61",
    ],
)
def test_malformed_packets_of_a_server(vector: str) -> None:
    with pytest.raises(ProtocolError):
        ours.decode(codec.packet(int(vector[:2], 16), bytes.fromhex(vector[5:])), LEVEL)
