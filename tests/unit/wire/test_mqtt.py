"""MQTT packets in both directions: vectors of the specification, split streams, round trips.

Source: MQTT Version 3.1.1 (OASIS Standard), whose section numbers the vectors cite; MQTT V3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.mqtt_packets import (
    LEVEL_3_1,
    LEVEL_3_1_1,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
    encode,
)
from kaa_gateway.errors import ProtocolError

if TYPE_CHECKING:
    from kaa_bench.mqtt_packets import Packet

SIZE_MAX = 268_435_455

VECTORS: list[tuple[str, Packet, str]] = [
    ("3.1, no more than it must hold", Connect("", keep_alive=0), "100c 0004 4d515454 04 02 0000 0000"),
    ("3.1, a session that stays", Connect("a", clean_session=False), "100d 0004 4d515454 04 00 003c 0001 61"),
    (
        "3.1.2.10, figure 3.6: every field",
        Connect("id", True, 10, Will("w/t", b"\x00m", 1), "user", b"\xffpw"),
        "1022 0004 4d515454 04 ce 000a 0002 6964 0003 772f74 0002 006d 0004 75736572 0003 ff7077",
    ),
    (
        "3.1.2.5 to 3.1.2.7: an empty will, QoS 2, retained",
        Connect("", True, 65535, Will("w", b"", 2, True)),
        "1011 0004 4d515454 04 36 ffff 0000 0001 77 0000",
    ),
    ("3.1.2.8, user name alone", Connect("", user_name="u"), "100f 0004 4d515454 04 82 003c 0000 0001 75"),
    ("V3.1, 3.1: its own name", Connect("a", level=LEVEL_3_1), "100f 0006 4d5149736470 03 02 003c 0001 61"),
    ("3.2", Connack(False, 0), "2002 00 00"),
    ("3.2.2.2, session present", Connack(True, 0), "2002 01 00"),
    ("3.2.2.3, not authorized", Connack(False, 5), "2002 00 05"),
    ("3.3.1, QoS 0", Publish("a/b", b"hello"), "300a 0003 612f62 68656c6c6f"),
    ("3.3.2.3, figure 3.11", Publish("a/b", b"", 1, 10), "3207 0003 612f62 000a"),
    ("3.3.1, QoS 2, DUP, RETAIN", Publish("a", b"\x00", 2, 65535, True, True), "3d06 0001 61 ffff 00"),
    ("3.3.2.1, a topic beyond ASCII", Publish("A\U0002a6d4", b""), "3007 0005 41f0aa9b94"),
    ("3.4", Puback(1), "4002 0001"),
    ("3.5", Pubrec(256), "5002 0100"),
    ("3.6", Pubrel(65535), "6202 ffff"),
    ("3.7", Pubcomp(2), "7002 0002"),
    (
        "3.8.3, figure 3.23",
        Subscribe(10, (("a/b", 1), ("c/d", 2))),
        "820e 000a 0003 612f62 01 0003 632f64 02",
    ),
    ("3.9.3, figure 3.26", Suback(10, (0, 2, 0x80)), "9005 000a 00 02 80"),
    ("3.10.3, figure 3.30", Unsubscribe(10, ("a/b", "c/d")), "a20c 000a 0003 612f62 0003 632f64"),
    ("3.11", Unsuback(10), "b002 000a"),
    ("3.12", Pingreq(), "c000"),
    ("3.13", Pingresp(), "d000"),
    ("3.14", Disconnect(), "e000"),
]

REMAINING_LENGTHS = [  # table 2.4: where the field grows by a byte
    (0, "00"),
    (127, "7f"),
    (128, "8001"),
    (16_383, "ff7f"),
    (16_384, "808001"),
    (2_097_151, "ffff7f"),
    (2_097_152, "80808001"),
    (SIZE_MAX, "ffffff7f"),
]

parametrize_vectors = pytest.mark.parametrize(
    ("packet", "octets"),
    [pytest.param(packet, bytes.fromhex(octets), id=title) for title, packet, octets in VECTORS],
)


@parametrize_vectors
def test_vector_is_read(packet: Packet, octets: bytes) -> None:
    decoded, consumed = decode(octets)
    assert decoded == packet
    assert type(decoded) is type(packet)
    assert consumed == len(octets)


@parametrize_vectors
def test_vector_is_written(packet: Packet, octets: bytes) -> None:
    assert encode(packet) == octets


@parametrize_vectors
def test_packet_split_at_every_byte_waits_for_the_rest(packet: Packet, octets: bytes) -> None:
    for size in range(len(octets)):
        assert decode(octets[:size]) == (None, 0)
    assert decode(octets + b"\xff\xff\xff") == (packet, len(octets))


def test_a_stream_is_cut_into_its_packets() -> None:
    stream = b"".join(bytes.fromhex(octets) for _, _, octets in VECTORS)
    packets: list[Packet] = []
    while stream:
        packet, consumed = decode(stream)
        assert packet is not None
        packets.append(packet)
        stream = stream[consumed:]
    assert packets == [packet for _, packet, _ in VECTORS]


def test_every_class_has_a_vector() -> None:
    classes = {cls for cls in vars(mqtt).values() if isinstance(cls, type) and issubclass(cls, tuple)}
    assert {type(packet) for _, packet, _ in VECTORS} == classes - {Will}


# ---------------------------------------------------------------- lengths


@pytest.mark.parametrize(("remaining", "field"), REMAINING_LENGTHS[:-1])
def test_remaining_length(remaining: int, field: str) -> None:
    """Table 2.4, in a PUBLISH where it is long enough for one, else in front of what is not there yet."""
    header = b"\x30" + bytes.fromhex(field)
    if remaining:
        payload = bytes(remaining - 3)
        assert encode(Publish("a", payload)) == header + b"\0\1a" + payload
        assert decode(header + b"\0\1a" + payload) == (Publish("a", payload), len(header) + remaining)
        assert decode(header) == (None, 0)
    else:
        assert encode(Pingreq()) == b"\xc0" + bytes.fromhex(field)


def test_the_largest_remaining_length_is_believed_only_as_far_as_the_limit() -> None:
    header = b"\x30" + bytes.fromhex(REMAINING_LENGTHS[-1][1])
    assert decode(header, size_max=SIZE_MAX + 5) == (None, 0)
    with pytest.raises(ProtocolError, match="mqtt_packet_too_large"):
        decode(header, size_max=SIZE_MAX + 4)


def test_the_size_limit_counts_the_whole_packet() -> None:
    packet = Publish("a", bytes(200))
    octets = encode(packet)
    assert decode(octets, size_max=len(octets)) == (packet, len(octets))
    for size in range(3, len(octets)):
        with pytest.raises(ProtocolError, match="mqtt_packet_too_large"):
            decode(octets[:size], size_max=len(octets) - 1)


def test_a_remaining_length_in_more_bytes_than_it_needs() -> None:
    """2.2.3 does not forbid it."""
    assert decode(bytes.fromhex("c0808000")) == (Pingreq(), 4)


# ---------------------------------------------------------------- MQTT 3.1


def test_mqtt_3_1_leaves_flags_open() -> None:
    """V3.1 2.1: DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE, and flags that are ignored where they mean nothing."""
    assert decode(bytes.fromhex("6a020001"), LEVEL_3_1) == (Pubrel(1), 4)
    assert decode(bytes.fromhex("8a060001000161 00"), LEVEL_3_1) == (Subscribe(1, (("a", 0),)), 8)
    assert decode(bytes.fromhex("40020001"), LEVEL_3_1) == (Puback(1), 4)
    assert decode(bytes.fromhex("38030001 61"), LEVEL_3_1) == (Publish("a", b"", dup=True), 5)


@pytest.mark.parametrize("flags", ["80", "c0"])
def test_mqtt_3_1_may_set_the_flags_of_credentials_and_leave_them_out(flags: str) -> None:
    """V3.1 3.1: "it is legal for the flag to be set and the field to be missing"."""
    octets = bytes.fromhex(f"100f 0006 4d5149736470 03 {flags} 003c 0001 61")
    assert decode(octets) == (Connect("a", clean_session=False, level=LEVEL_3_1), len(octets))


# ---------------------------------------------------------------- what does not fit

TOO_LONG = "x" * 65_536


@pytest.mark.parametrize(
    "packet",
    [
        Publish(TOO_LONG, b""),
        Connect(TOO_LONG),
        Connect("", user_name=TOO_LONG),
        Connect("", user_name="", password=TOO_LONG.encode()),
        Connect("", will=Will(TOO_LONG, b"")),
        Connect("", will=Will("w", TOO_LONG.encode())),
        Connect("", will=Will("w", b"", 3)),
        Subscribe(1, ((TOO_LONG, 0),)),
        Unsubscribe(1, (TOO_LONG,)),
        Publish("a", b"", 3, 1),
        Publish("a", b"", -1),
        Suback(1, (256,)),
    ],
)
def test_a_field_that_does_not_fit_is_not_written(packet: Packet) -> None:
    with pytest.raises(ValueError, match=r"65535|QoS|range"):
        encode(packet)


@pytest.mark.parametrize(
    "packet",
    [
        Connect("", keep_alive=65_536),
        Publish("a", b"", 1, 65_536),
        Puback(65_536),
        Unsuback(-1),
        Subscribe(65_536, (("a", 0),)),
        Unsubscribe(-1, ("a",)),
        Connack(False, 256),
    ],
)
def test_a_number_that_does_not_fit_is_not_written(packet: Packet) -> None:
    with pytest.raises(OverflowError):
        encode(packet)


def test_a_payload_that_does_not_fit_is_not_written() -> None:
    """Remaining Length ends at 256 MiB (2.2.3): a longer header would not have the room that was made for it."""
    with pytest.raises(ValueError, match="payload"):
        encode(Publish("a", bytes(SIZE_MAX - 4)))


# ---------------------------------------------------------------- round trips

packet_ids = st.integers(1, 65_535)
qos = st.integers(0, 2)
# 1.5.3: no surrogates, and NUL is refused; 4.7: topic names have no wildcards and at least one character.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=30)
levels = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#/"), max_size=5)
filters = (
    st.lists(levels | st.just("+"), min_size=1, max_size=5)
    .flatmap(lambda parts: st.sampled_from([parts, [*parts, "#"]]))
    .map("/".join)
    .filter(bool)
)
wills = st.builds(Will, topics, st.binary(max_size=30), qos, st.booleans())


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    user_name = draw(st.none() | texts)
    password = draw(st.none() | st.binary(max_size=30)) if user_name is not None else None
    return Connect(
        draw(texts), draw(st.booleans()), draw(st.integers(0, 65_535)), draw(st.none() | wills), user_name,
        password, draw(st.sampled_from([LEVEL_3_1, LEVEL_3_1_1])),
    )  # fmt: skip


packets: st.SearchStrategy[Packet] = st.one_of(
    connects(),
    st.tuples(st.booleans(), st.integers(0, 255)).map(lambda fields: Connack(*fields)),
    st.tuples(topics, st.binary(max_size=300), st.just(0), st.just(0), st.just(False), st.booleans()).map(
        lambda fields: Publish(*fields)
    ),
    st.tuples(
        topics, st.binary(max_size=300), st.integers(1, 2), packet_ids, st.booleans(), st.booleans()
    ).map(lambda fields: Publish(*fields)),
    st.sampled_from([Puback, Pubrec, Pubrel, Pubcomp, Unsuback]).flatmap(packet_ids.map),
    st.builds(Subscribe, packet_ids, st.lists(st.tuples(filters, qos), min_size=1, max_size=4).map(tuple)),
    st.builds(Suback, packet_ids, st.lists(st.integers(0, 255), min_size=1, max_size=4).map(tuple)),
    st.builds(Unsubscribe, packet_ids, st.lists(filters, min_size=1, max_size=4).map(tuple)),
    st.sampled_from([Pingreq(), Pingresp(), Disconnect()]),
)


@given(packets, st.binary(max_size=4))
def test_round_trip(packet: Packet, behind: bytes) -> None:
    octets = encode(packet)
    assert decode(octets + behind) == (packet, len(octets))
