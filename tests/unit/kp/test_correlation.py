"""Correlation IDs. Source: RFC 9562, sections 4 and 5.8 (UUID version 8); the layout is our own."""

import uuid

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kaa_gateway.kp.correlation import Correlator

COUNT = 0x01234567
TAG = 0xABCDEF

tags = st.integers(0, 2**24 - 1)
sessions = st.integers(0, 2**36 - 1)  # slot 24, generation 12
services = st.integers(0, 3)
sequences = st.integers(0, 2**28 - 1)


@example(0, 0, 0, 0)
@example(2**24 - 1, 2**36 - 1, 3, 2**28 - 1)
@given(tags, sessions, services, sequences)
def test_round_trip_in_a_uuid_of_version_8(tag: int, session: int, service: int, sequence: int) -> None:
    text = Correlator(tag, COUNT).encode(session, service, sequence)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert parsed.version == 8
    assert parsed.variant == uuid.RFC_4122
    assert Correlator(tag, 0).decode(text.encode()) == (session, service, sequence)


def test_every_bit_has_its_place() -> None:
    """tag 24 | slot 24 | version 4 | generation 12 | variant 2 | service 2 | sequence 28 | count 32."""

    def value(tag: int, session: int, service: int, sequence: int) -> int:
        return uuid.UUID(Correlator(tag, COUNT).encode(session, service, sequence)).int

    nothing = value(0, 0, 0, 0)
    assert nothing == (8 << 44 | 2 << 30) << 32 | COUNT
    for bit in range(24):
        assert value(1 << bit, 0, 0, 0) ^ nothing == 1 << 104 + bit
        assert value(0, 1 << 12 + bit, 0, 0) ^ nothing == 1 << 80 + bit
    for bit in range(12):
        assert value(0, 1 << bit, 0, 0) ^ nothing == 1 << 64 + bit
    for bit in range(2):
        assert value(0, 0, 1 << bit, 0) ^ nothing == 1 << 60 + bit
    for bit in range(28):
        assert value(0, 0, 0, 1 << bit) ^ nothing == 1 << 32 + bit


def test_a_sequence_longer_than_its_field_changes_no_other() -> None:
    correlator = Correlator(TAG, COUNT)
    text = correlator.encode(5, 1, 2**32 - 1)
    assert correlator.decode(text.encode()) == (5, 1, 2**28 - 1)


def test_ids_of_equal_messages_differ() -> None:
    """Random numbers would repeat: of 300,000 with 32 bits, ten do. A stream drops a message with a repeated ID."""
    correlator = Correlator(TAG, 2**32 - 1000)
    assert len({correlator.encode(1, 1, 1) for _ in range(300_000)}) == 300_000


@given(tags, tags)
def test_an_id_of_another_worker_is_not_read(ours: int, theirs: int) -> None:
    text = Correlator(theirs, COUNT).encode(1, 2, 3)
    assert (Correlator(ours, COUNT).decode(text.encode()) is None) == (ours != theirs)


def test_upper_case_is_read() -> None:
    """RFC 9562 section 4: written in lower case, read in either."""
    correlator = Correlator(TAG, COUNT)
    text = correlator.encode(2**36 - 1, 2, 0xABCDEF)
    assert correlator.decode(text.upper().encode()) == (2**36 - 1, 2, 0xABCDEF)


def test_other_versions_and_variants_are_not_read() -> None:
    correlator = Correlator(TAG, COUNT)
    text = correlator.encode(1, 2, 3)
    for digit in "0123456789abcdef":
        altered = text[:14] + digit + text[15:]
        assert (correlator.decode(altered.encode()) is None) == (digit != "8")
        altered = text[:19] + digit + text[20:]
        assert (correlator.decode(altered.encode()) is None) == (digit not in "89ab")


def test_a_changed_length_hyphen_or_digit_is_not_read() -> None:
    correlator = Correlator(TAG, COUNT)
    text = correlator.encode(1, 2, 3).encode()
    for at in range(len(text)):
        assert correlator.decode(text[:at]) is None
        assert correlator.decode(text[:at] + text[at + 1 :]) is None
        assert correlator.decode(text[:at] + b"g" + text[at + 1 :]) is None
        assert correlator.decode(text[:at] + b"\xff" + text[at + 1 :]) is None
        assert correlator.decode(text[:at] + b"\0" + text[at + 1 :]) is None
    assert correlator.decode(text + b"0") is None
    assert correlator.decode(b"{" + text + b"}") is None


@settings(max_examples=300)
@given(
    st.binary(max_size=50)
    | st.binary(min_size=36, max_size=36)
    | st.from_regex(r"[0-9a-f-]{36}").map(str.encode)
)
def test_garbage_is_not_read(text: bytes) -> None:
    found = Correlator(TAG, COUNT).decode(text)
    assert found is None or text.lower().startswith(b"abcdef")


@pytest.mark.parametrize(("tag", "count"), [(-1, 0), (2**24, 0), (0, -1), (0, 2**32)])
def test_what_it_is_made_of_is_checked(tag: int, count: int) -> None:
    with pytest.raises(ValueError, match="24 bits"):
        Correlator(tag, count)
