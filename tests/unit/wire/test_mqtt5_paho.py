"""Properties of MQTT 5 by our codec and by paho's, which share nothing: what one writes, the other reads.

Where paho is more lenient than the specification (it takes strings that are no UTF-8 and values that are forbidden),
what our codec takes must still mean the same to paho.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_bench import mqtt_packets as ours
from kaa_gateway.errors import ProtocolError
from paho.mqtt import properties as paho_properties
from paho.mqtt.packettypes import PacketTypes

from tests.support.mqtt5 import codec

Properties: Any = paho_properties.Properties
LEVEL = ours.LEVEL_5
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
TOPIC = st.text("abc/", min_size=1, max_size=20)
BYTES = st.binary(max_size=20)
PUBLISH_PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "PayloadFormatIndicator": st.just(0),
        "MessageExpiryInterval": st.integers(0, 2**32 - 1),
        "ContentType": TEXT,
        "ResponseTopic": TOPIC,
        "CorrelationData": BYTES,
        "TopicAlias": st.integers(1, 2**16 - 1),
        "UserProperty": st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4),
    },
)
CONNECT_PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "SessionExpiryInterval": st.integers(0, 2**32 - 1),
        "ReceiveMaximum": st.integers(1, 2**16 - 1),
        "MaximumPacketSize": st.integers(1, 268_435_455),  # what paho allows
        "TopicAliasMaximum": st.integers(0, 2**16 - 1),
        "RequestResponseInformation": st.integers(0, 1),
        "RequestProblemInformation": st.integers(0, 1),
        "UserProperty": st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4),
    },
)


def packed(packet_type: int, values: dict[str, Any]) -> bytes:
    """A section of properties as paho writes it, with its length."""
    properties = Properties(packet_type)
    for name, value in values.items():
        setattr(properties, name, value)
    return bytes(properties.pack())


def publish(section: bytes, payload: bytes = b"payload") -> bytes:
    return codec.packet(0x30, b"\0\1t" + section + payload)


@given(PUBLISH_PROPERTIES, BYTES)
def test_a_publish_of_paho(values: dict[str, Any], payload: bytes) -> None:
    encoded = publish(packed(PacketTypes.PUBLISH, values), payload)
    found, size = ours.decode(encoded, LEVEL)
    assert size == len(encoded)
    assert isinstance(found, ours.Publish)
    assert found.payload == payload
    assert found.topic_alias == values.get("TopicAlias", 0)
    assert found.response_topic == values.get("ResponseTopic")
    assert found.correlation_data == values.get("CorrelationData")


@given(CONNECT_PROPERTIES)
def test_a_connect_of_paho(values: dict[str, Any]) -> None:
    head = b"\0\4MQTT\5\2\0\0"
    encoded = codec.packet(0x10, head + packed(PacketTypes.CONNECT, values) + b"\0\2id")
    assert ours.decode(encoded, LEVEL) == (ours.Connect("id", True, 0, level=LEVEL), len(encoded))


@given(st.integers(0, 2**16 - 1), st.none() | TOPIC, st.none() | BYTES, st.sampled_from([0, 200, 404]))
def test_a_publish_of_ours(alias: int, topic: str | None, data: bytes | None, status: int) -> None:
    message = ours.Publish("t", b"payload", 0, 0, False, False, alias, topic, data, status)
    encoded = ours.encode(message, LEVEL)
    properties = Properties(PacketTypes.PUBLISH)
    _, size = properties.unpack(encoded[5:])
    assert encoded[5 + size :] == b"payload"
    found = properties.json()
    assert found.get("TopicAlias", 0) == alias
    assert found.get("ResponseTopic") == topic
    assert found.get("CorrelationData") == (None if data is None else data.hex())


@given(PUBLISH_PROPERTIES, st.data())
def test_what_we_take_of_a_damaged_section_paho_takes_alike(
    values: dict[str, Any], data: st.DataObject
) -> None:
    section = bytearray(packed(PacketTypes.PUBLISH, values))
    for _ in range(data.draw(st.integers(1, 3))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    encoded = publish(bytes(section))
    try:
        found, _ = ours.decode(encoded, LEVEL)
    except ProtocolError:
        return
    assert isinstance(found, ours.Publish)
    properties = Properties(PacketTypes.PUBLISH)
    rest = encoded[codec.decode(encoded)[1] - len(section) - 7 :]
    _, size = properties.unpack(rest)
    assert found.payload == rest[size:]
    taken = properties.json()
    assert found.topic_alias == taken.get("TopicAlias", 0)
    assert found.response_topic == taken.get("ResponseTopic")


@pytest.mark.parametrize("name", ["ReceiveMaximum", "MaximumPacketSize"])
def test_a_value_that_paho_would_write_but_that_is_forbidden(name: str) -> None:
    packet_type = PacketTypes.CONNECT
    section = bytearray(packed(packet_type, {name: 1}))
    section[-1] = 0
    with pytest.raises(ProtocolError):
        ours.decode(codec.packet(0x10, b"\0\4MQTT\5\2\0\0" + bytes(section) + b"\0\2id"), LEVEL)
