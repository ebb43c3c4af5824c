"""MQTT-SN messages: byte vectors by the tables of MQTT-SN 1.2, section 5.4, and everything that is malformed."""

from typing import Any

import pytest
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.mqtt_sn import MALFORMED_REASONS, advertise, decode

from tests.support.mqtt_sn_examples import EXAMPLES


@pytest.mark.parametrize(("vector", "kind", "fields"), EXAMPLES)
def test_messages_of_the_specification(vector: str, kind: int, fields: dict[str, Any]) -> None:
    assert decode(bytes.fromhex(vector)) == (kind, fields)


@pytest.mark.parametrize(("vector", "kind", "fields"), EXAMPLES)
def test_a_length_of_three_bytes_means_the_same(vector: str, kind: int, fields: dict[str, Any]) -> None:
    short = bytes.fromhex(vector)
    long = b"\x01" + (len(short) + 2).to_bytes(2, "big") + short[1:]
    assert decode(long) == (kind, fields)


def test_a_long_message_is_read_to_its_end() -> None:
    payload = bytes(60_000)
    datagram = b"\x01" + (len(payload) + 9).to_bytes(2, "big") + b"\x0c\0\0\5\0\0" + payload
    assert decode(datagram)[1]["text"] == payload


@pytest.mark.parametrize("vector", [each[0] for each in EXAMPLES])
def test_a_message_that_is_cut_off_is_malformed_at_every_length(vector: str) -> None:
    whole = bytes.fromhex(vector)
    for size in range(len(whole)):
        with pytest.raises(ProtocolError) as caught:
            decode(whole[:size])
        assert caught.value.reason == "mqtt_sn_length"


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ("", "mqtt_sn_length"),
        ("01", "mqtt_sn_length"),
        ("0100", "mqtt_sn_length"),
        ("010003", "mqtt_sn_length"),  # no type
        ("00 16", "mqtt_sn_length"),
        ("03 16", "mqtt_sn_length"),  # more than there is
        ("02 16 00", "mqtt_sn_length"),  # less than there is
        ("05 04 04 01 00", "mqtt_sn_length"),
        ("06 0a 0000 0102", "mqtt_sn_length"),  # a topic without a character
        ("06 0c 00 0001 00", "mqtt_sn_length"),
        ("06 12 01 0009 05", "mqtt_sn_length"),  # a topic ID of one byte
        ("08 12 02 0009 616263", "mqtt_sn_length"),  # a short topic name of three
        ("05 12 00 0009", "mqtt_sn_length"),  # no topic
        ("03 18 00", "mqtt_sn_length"),
        ("03 07 00", "mqtt_sn_length"),  # flags without a topic
        ("07 0c 03 0001 0000", "mqtt_sn_field"),  # the reserved type of topic ID
        ("07 12 03 0009 0001", "mqtt_sn_field"),
        ("04 07 60 61", "mqtt_sn_field"),  # a will at QoS -1
        ("03 05 00", "mqtt_sn_type"),  # of a gateway
        ("02 06", "mqtt_sn_type"),
        ("02 03", "mqtt_sn_type"),  # reserved
        ("02 fd", "mqtt_sn_type"),
        ("02 fe", "mqtt_sn_type"),
    ],
)
def test_malformed_messages(vector: str, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(bytes.fromhex(vector))
    assert caught.value.reason == reason
    assert reason in MALFORMED_REASONS


def test_advertise() -> None:
    assert advertise(7, 900) == bytes.fromhex("05 00 07 0384")  # Table 6
