"""Frames of KP over UDP: the examples of the specification, what is malformed, and round trips.

Source: docs/kp-over-udp.md, whose hex strings are read from the document itself.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.kpudp import Message, Reason, Type, decode, encode

from tests.support.kpudp_examples import HEX

EPOCH = 0x2A
DCX = "kp1/app_v1/dcx/tok/json"
EIGHT = bytes(range(1, 9))
RANDOM = bytes(range(0xA0, 0xA8))

EXAMPLES: list[list[Message]] = [
    [Message(Type.CONFIRMED_DATA, 0x1000, alias=1, path=DCX, payload=b'{"t":21}')],
    [Message(Type.ACK, 0x1000)],
    [Message(Type.CONFIRMED_DATA, 0x1001, alias=1, payload=b'{"t":22}')],
    [
        Message(Type.DATA, 0x1002, alias=1, payload=b'{"t":23}'),
        Message(Type.DATA, 0x1003, alias=1, payload=b'{"t":24}'),
    ],
    [Message(Type.REQUEST, 0x1004, alias=2, path="kp1/app_v1/tsx/tok")],
    [Message(Type.RESPONSE, 0x7D01, request_id=0x1004, status=200, payload=b'{"time":9}')],
    [Message(Type.RESPONSE, 0x7D02, request_id=0x1005, status=404, reason_phrase="Not Found")],
    [Message(Type.ACK, 0x7D02)],
    [Message(Type.PUSH, 0x7D03, path="kp1/app_v1/cex/tok/command/blink", status=200, payload=b"[]")],
    [Message(Type.PING, 0x1006, path="kp1/app_v1/cex/tok", payload=EIGHT)],
    [Message(Type.PONG, 0x1006, payload=EIGHT), Message(Type.PING, 0x7D00, payload=RANDOM)],
    [Message(Type.PONG, 0x7D00, payload=RANDOM)],
    [Message(Type.RESET, 0x1001, status=Reason.UNKNOWN_ALIAS)],
    [Message(Type.RESET, 0x1000, status=404)],
]
"""What the examples of the document say, in its order."""


def test_every_example_of_the_document_is_known_here() -> None:
    assert len(HEX) == len(EXAMPLES)


@pytest.mark.parametrize(("datagram", "messages"), list(zip(HEX, EXAMPLES, strict=False)))
def test_examples_of_the_document(datagram: bytes, messages: list[Message]) -> None:
    assert decode(datagram) == (EPOCH, messages)
    assert datagram in {encode(EPOCH, messages), encode(EPOCH, messages, last_has_length=True)}


def test_sizes_that_the_document_promises() -> None:
    payload = b"x" * 100
    by_path = encode(EPOCH, [Message(Type.CONFIRMED_DATA, 1, alias=1, path=DCX, payload=payload)])
    by_alias = encode(EPOCH, [Message(Type.CONFIRMED_DATA, 1, alias=1, payload=payload)])
    many = encode(EPOCH, [Message(Type.DATA, i, alias=1, payload=b"x" * 100) for i in range(8)])
    assert len(by_path) - len(payload) - len(DCX) == 7
    assert len(by_alias) - len(payload) == 6
    assert len(many) - 8 * 100 == 8 * 6


MALFORMED = {
    "empty": ("", "kpudp_not_kpudp"),
    "no epoch": ("b1", "kpudp_not_kpudp"),
    "magic": ("a12a", "kpudp_not_kpudp"),
    "coap": ("400100017468696e67", "kpudp_not_kpudp"),
    "version": ("b22a041000", "kpudp_version"),
    "no frames": ("b12a", "kpudp_empty"),
    "head cut": ("b12a0410", "kpudp_truncated_head"),
    "second head cut": ("b12a0410000410", "kpudp_truncated_head"),
    "reserved bit": ("b12a12100001", "kpudp_flags"),
    "other reserved bit": ("b12a22100001", "kpudp_flags"),
    "ack with length": ("b12a8410000000", "kpudp_flags"),
    "ack with path": ("b12a441000", "kpudp_flags"),
    "response with path": ("b12a45100010040 0c800".replace(" ", ""), "kpudp_flags"),
    "push with path flag": ("b12a46100000c80001 41".replace(" ", ""), "kpudp_flags"),
    "pong with path": ("b12a48100000", "kpudp_flags"),
    "reset cut": ("b12a09100000", "kpudp_truncated_body"),
    "length cut": ("b12a82100000", "kpudp_truncated_body"),
    "body shorter than length": ("b12a821000000301aa", "kpudp_truncated_body"),
    "no address": ("b12a021000", "kpudp_truncated_body"),
    "no alias": ("b12a02100000aa", "kpudp_alias"),
    "alias too large": ("b12a02100011aa", "kpudp_alias"),
    "no path length": ("b12a42100001", "kpudp_path"),
    "path cut": ("b12a4210000102aa", "kpudp_path"),
    "empty path": ("b12a4210000100aa", "kpudp_path"),
    "response cut": ("b12a05100010", "kpudp_truncated_body"),
    "response without status": ("b12a051000100400", "kpudp_status"),
    "phrase cut": ("b12a051000100400c80241", "kpudp_status"),
    "push without path": ("b12a06100000c800", "kpudp_path"),
    "push with empty path": ("b12a06100000c80000", "kpudp_path"),
    "push with path cut": ("b12a06100000c8000241", "kpudp_path"),
    "nine bytes of ping": ("b12a071000" + "00" * 9, "kpudp_size"),
    "type 0": ("b12a001000", "kpudp_unknown_type"),
    "type 10": ("b12a0a1000", "kpudp_unknown_type"),
    "type 15": ("b12a8f10000000", "kpudp_unknown_type"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_datagrams_have_a_reason(name: str) -> None:
    text, reason = MALFORMED[name]
    with pytest.raises(ProtocolError) as error:
        decode(bytes.fromhex(text))
    assert error.value.reason == reason


@pytest.mark.parametrize(
    "message",
    [
        Message(Type.DATA, 1, alias=1, path=""),
        Message(Type.DATA, 1, alias=1, path="p" * 256),
        Message(Type.DATA, 1, alias=1, payload=b"x" * 1195),
        Message(Type.RESPONSE, 1, status=200, reason_phrase="p" * 256),
        Message(Type.PING, 1, payload=bytes(9)),
    ],
)
def test_what_breaks_a_bound_is_not_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match=r"at least|at most"):
        encode(EPOCH, [message])


def test_the_largest_datagram() -> None:
    message = Message(Type.DATA, 1, alias=1, payload=b"x" * 1194)
    datagram = encode(EPOCH, [message])
    assert len(datagram) == 1200
    assert decode(datagram) == (EPOCH, [message])


IDS = st.integers(0, 0xFFFF)
PATHS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
PHRASES = st.text(st.characters(codec="utf-8"), max_size=30)
PAYLOADS = st.binary(max_size=60)
ADDRESSED = st.sampled_from([Type.DATA, Type.CONFIRMED_DATA, Type.REQUEST])


def message_of(kind: Type, message_id: int, **fields: Any) -> Message:
    """Fields that are not given keep their defaults: hypothesis would draw them from the annotations."""
    return Message(kind, message_id, **fields)


MESSAGES = st.one_of(
    st.builds(message_of, ADDRESSED, IDS, alias=st.integers(1, 16), payload=PAYLOADS),
    st.builds(message_of, ADDRESSED, IDS, alias=st.integers(0, 16), path=PATHS, payload=PAYLOADS),
    st.builds(
        message_of,
        st.just(Type.PING),
        IDS,
        alias=st.integers(0, 16),
        path=PATHS,
        payload=st.binary(max_size=8),
    ),
    st.builds(message_of, st.sampled_from([Type.PING, Type.PONG]), IDS, payload=st.binary(max_size=8)),
    st.builds(message_of, st.just(Type.ACK), IDS),
    st.builds(message_of, st.just(Type.RESET), IDS, status=IDS),
    st.builds(
        message_of,
        st.just(Type.RESPONSE),
        IDS,
        request_id=IDS,
        status=IDS,
        reason_phrase=PHRASES,
        payload=PAYLOADS,
    ),
    st.builds(
        message_of, st.just(Type.PUSH), IDS, path=PATHS, status=IDS, reason_phrase=PHRASES, payload=PAYLOADS
    ),
)


@given(
    epoch=st.integers(0, 255), messages=st.lists(MESSAGES, min_size=1, max_size=3), with_length=st.booleans()
)
def test_what_is_encoded_is_decoded(epoch: int, messages: list[Message], with_length: bool) -> None:
    assert decode(encode(epoch, messages, last_has_length=with_length)) == (epoch, messages)
