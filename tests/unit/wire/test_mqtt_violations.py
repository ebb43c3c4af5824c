"""Every reason for which the MQTT decoder ends a connection, and at which byte of which packet.

Source: MQTT Version 3.1.1 (OASIS Standard), whose section numbers the table cites.
"""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaa_bench.mqtt_packets import decode
from kaa_gateway.errors import ProtocolError

ROOT = Path(__file__).resolve().parents[3]
SOURCES = (
    "gateway/kaa_gateway/wire/mqtt.pyx",
    "gateway/kaa_gateway/wire/mqtt_fields.pyx",
    "bench/kaa_bench/mqtt_packets.pyx",
)
OF_MQTT_5 = {
    "control_character",
    "malformed_variable_integer",
    "reason_code",
    "reserved_subscription_options",
    "retain_handling",
}
"""Those that only MQTT 5 knows: see test_mqtt_5.py."""
CONNECT = "0004 4d515454 04"
"""The variable header of CONNECT up to its flags."""

VIOLATIONS = [
    ("malformed_remaining_length", "2.2.3: a fifth byte", "10 80808080 01"),
    ("malformed_remaining_length", "2.2.3: seen at the fourth", "30 ffffffff"),
    ("packet_too_large", "2.2.3: above our limit, before the rest has come", "30 8101"),
    ("unknown_packet_type", "2.2.1: 0 is reserved", "0000"),
    ("unknown_packet_type", "2.2.1: 15 is reserved", "f000"),
    ("reserved_flags", "2.2.2: CONNECT", f"110c {CONNECT} 02 003c 0000"),
    ("reserved_flags", "2.2.2: CONNACK", "2102 0000"),
    ("reserved_flags", "2.2.2: PUBACK", "4202 0001"),
    ("reserved_flags", "2.2.2: PUBREL without its 0010", "6002 0001"),
    ("reserved_flags", "2.2.2: SUBSCRIBE without its 0010", "8006 0001 0001 61 00"),
    ("reserved_flags", "2.2.2: SUBACK", "9f03 0001 00"),
    ("reserved_flags", "2.2.2: UNSUBSCRIBE without its 0010", "a005 0001 0001 61"),
    ("reserved_flags", "2.2.2: PINGREQ", "c100"),
    ("reserved_flags", "2.2.2: DISCONNECT", "e100"),
    ("truncated_field", "1.5.3: no length", "1001 00"),
    ("truncated_field", "1.5.3: a length beyond the packet", "1003 0004 4d"),
    ("truncated_field", "3.1.2.2: no level", "1006 0004 4d515454"),
    ("truncated_field", "3.1.2.3: no flags", f"1007 {CONNECT}"),
    ("truncated_field", "3.1.2.10: half a keep-alive", f"1009 {CONNECT} 02 00"),
    ("truncated_field", "3.1.3.1: no client identifier", f"100a {CONNECT} 02 003c"),
    ("truncated_field", "3.1.3.2: no will topic", f"100c {CONNECT} 06 003c 0000"),
    ("truncated_field", "3.1.3.3: no will message", f"100f {CONNECT} 06 003c 0000 0001 77"),
    ("truncated_field", "3.1.3.4: no user name", f"100c {CONNECT} 82 003c 0000"),
    ("truncated_field", "3.1.3.5: no password", f"100f {CONNECT} c2 003c 0000 0001 75"),
    ("truncated_field", "3.3.2: PUBLISH of nothing", "3000"),
    ("truncated_field", "3.3.2: PUBLISH of one byte", "3001 00"),
    ("truncated_field", "3.3.2.1: a topic beyond the packet", "3003 0002 61"),
    ("truncated_field", "3.3.2.2: no packet identifier", "3203 0001 61"),
    ("truncated_field", "3.3.2.2: half a packet identifier", "3204 0001 61 00"),
    ("truncated_field", "3.8.2: half a packet identifier", "8201 00"),
    ("truncated_field", "3.8.3: no requested QoS", "8205 0001 0001 61"),
    ("truncated_field", "3.8.3: half a length", "8207 0001 0001 61 00 00"),
    ("truncated_field", "3.10.3: a filter beyond the packet", "a205 0001 0002 61"),
    ("unknown_protocol_name", "3.1.2.1", "100c 0004 4d515458 04 02 003c 0000"),
    ("unknown_protocol_name", "3.1.2.1: case counts", "100c 0004 6d717474 04 02 003c 0000"),
    ("unknown_protocol_name", "3.1.2.1: none", "100a 0000 0402 003c 0000 0000"),
    ("unacceptable_protocol_version", "3.1.2.2: 6", "100c 0004 4d515454 06 02 003c 0000"),
    ("unacceptable_protocol_version", "3.1.2.2: MQTT 3 does not exist", "100c 0004 4d515454 03 02 003c 0000"),
    ("unacceptable_protocol_version", "3.1.2.2: nor MQIsdp 4", "100e 0006 4d5149736470 04 02 003c 0000"),
    ("unacceptable_protocol_version", "3.1.2.2: a bridge", "100c 0004 4d515454 84 02 003c 0000"),
    ("unacceptable_protocol_version", "3.1.2.2: and nothing behind it", "1007 0004 4d515454 03"),
    ("reserved_connect_flag", "3.1.2.3", f"100c {CONNECT} 03 003c 0000"),
    ("malformed_will_flags", "3.1.2.6: will QoS 3", f"1011 {CONNECT} 1e 003c 0000 0001 77 0000"),
    ("malformed_will_flags", "3.1.2.6: QoS without a will", f"100c {CONNECT} 0a 003c 0000"),
    ("malformed_will_flags", "3.1.2.7: RETAIN without a will", f"100c {CONNECT} 22 003c 0000"),
    ("password_without_user_name", "3.1.2.9", f"100f {CONNECT} 42 003c 0000 0001 70"),
    ("trailing_bytes", "3.1.3: behind the last field", f"100d {CONNECT} 02 003c 0000 00"),
    ("nul_in_string", "1.5.3: client identifier", f"100d {CONNECT} 02 003c 0001 00"),
    ("nul_in_string", "1.5.3: topic", "3005 0003 610062"),
    ("nul_in_string", "1.5.3: filter", "8208 0001 0003 610062 00"),
    ("not_utf8", "1.5.3: client identifier", f"100d {CONNECT} 02 003c 0001 ff"),
    ("not_utf8", "1.5.3: user name", f"100f {CONNECT} 82 003c 0000 0001 c3"),
    ("not_utf8", "1.5.3: a surrogate in a topic", "3005 0003 eda080"),
    ("not_utf8", "1.5.3: an overlong form", "3004 0002 c0af"),
    ("not_utf8", "1.5.3: filter", "a205 0001 0001 80"),
    ("empty_topic", "4.7.3", "3002 0000"),
    ("empty_topic", "4.7.3: will", f"1010 {CONNECT} 06 003c 0000 0000 0000"),
    ("wildcard_in_topic_name", "3.3.2.1: #", "3004 0002 2f23"),
    ("wildcard_in_topic_name", "3.3.2.1: +", "3003 0001 2b"),
    ("wildcard_in_topic_name", "4.7.1: will", f"1011 {CONNECT} 06 003c 0000 0001 23 0000"),
    ("empty_topic_filter", "4.7.3", "8205 0001 0000 00"),
    ("malformed_topic_filter", "4.7.1.2: # before the end", "8208 0001 0003 232f61 00"),
    ("malformed_topic_filter", "4.7.1.2: # with others in its level", "8207 0001 0002 6123 00"),
    ("malformed_topic_filter", "4.7.1.3: + with others before it", "8207 0001 0002 612b 00"),
    ("malformed_topic_filter", "4.7.1.3: + with others behind it", "a206 0001 0002 2b61"),
    ("malformed_topic_filter", "4.7.1: both in one level", "a206 0001 0002 2b23"),
    ("malformed_requested_qos", "3.8.3.1: 3", "8206 0001 0001 61 03"),
    ("malformed_requested_qos", "3.8.3.1: a reserved bit", "8206 0001 0001 61 80"),
    ("no_topic_filter", "3.8.3: SUBSCRIBE of nothing", "8202 0001"),
    ("no_topic_filter", "3.10.3: UNSUBSCRIBE of nothing", "a202 0001"),
    ("packet_id_0", "2.3.1: PUBLISH", "3205 0001 61 0000"),
    ("packet_id_0", "2.3.1: PUBACK", "4002 0000"),
    ("packet_id_0", "2.3.1: SUBSCRIBE", "8206 0000 0001 61 00"),
    ("packet_id_0", "2.3.1: UNSUBSCRIBE", "a205 0000 0001 61"),
    ("qos_3", "3.3.1.2", "3605 0001 61 0001"),
    ("dup_at_qos_0", "3.3.1.1", "3803 0001 61"),
    ("malformed_length", "3.4: one byte", "4001 00"),
    ("malformed_length", "3.5: three bytes", "5003 000100"),
    ("malformed_length", "3.6: none", "6200"),
    ("malformed_length", "3.12: PINGREQ with a body", "c001 00"),
    ("malformed_length", "3.14: DISCONNECT with a body", "e001 00"),
    ("malformed_connack", "3.2: three bytes", "2003 000000"),
    ("malformed_connack", "3.2.2.1: reserved bits", "2002 0200"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "octets"),
    [
        pytest.param(reason, bytes.fromhex(octets), id=f"{reason}, {why}")
        for reason, why, octets in VIOLATIONS
    ],
)
def test_violation(reason: str, octets: bytes) -> None:
    with pytest.raises(ProtocolError) as failure:
        decode(octets, size_max=128)
    assert failure.value.reason == f"mqtt_{reason}"


def test_every_reason_of_the_decoder_is_in_the_table() -> None:
    source = "".join((ROOT / path).read_text(encoding="utf-8") for path in SOURCES)
    reasons = set(re.findall(r'\bviolation\(\s*"(\w+)"', source))
    assert len(reasons) > 15
    assert reasons - OF_MQTT_5 == {reason for reason, _, _ in VIOLATIONS}


@settings(max_examples=300)
@given(
    st.sampled_from(
        [b"\x10", b"\x20", b"\x30", b"\x32", b"\x34", b"\x40", b"\x62", b"\x82", b"\x90", b"\xa2"]
    ),
    st.binary(max_size=60),
)
def test_any_body_is_read_or_refused(first: bytes, body: bytes) -> None:
    octets = first + bytes([len(body)]) + body
    for level in (3, 4):
        try:
            packet, consumed = decode(octets, level)
        except ProtocolError:
            continue
        assert packet is not None
        assert consumed == len(octets)
