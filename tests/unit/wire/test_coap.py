"""The CoAP codec: vectors of the RFCs, what is malformed, and aiocoap's codec as the oracle, both ways."""

import aiocoap
import pytest
from aiocoap.numbers import OptionNumber
from aiocoap.numbers.types import Type
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.coap import Message, decode, encode

VECTORS = {
    # RFC 7252 appendix A, figure 16: CON GET /temperature, and its piggybacked 2.05.
    "40017d34bb74656d7065726174757265": Message(0, 0x01, 0x7D34, b"", ((11, b"temperature"),)),
    "60457d34ff32322e332043": Message(2, 0x45, 0x7D34, b"", (), b"22.3 C"),
    # Figure 17: the same with a token of one byte.
    "41017d3520bb74656d7065726174757265": Message(0, 0x01, 0x7D35, b"\x20", ((11, b"temperature"),)),
    "61457d3520ff32322e332043": Message(2, 0x45, 0x7D35, b"\x20", (), b"22.3 C"),
    # Figures 20 and 21: an empty acknowledgement, a separate confirmable response, and a Reset.
    "60007d38": Message(2, 0, 0x7D38),
    "4145ad7b53ff32322e332043": Message(0, 0x45, 0xAD7B, b"\x53", (), b"22.3 C"),
    "7000ad7b": Message(3, 0, 0xAD7B),
}


@pytest.mark.parametrize(("datagram", "message"), VECTORS.items())
def test_vectors_of_rfc_7252(datagram: str, message: Message) -> None:
    assert decode(bytes.fromhex(datagram)) == message
    assert encode(message) == bytes.fromhex(datagram)


# RFC 8974 section 2.1: TKL 13 and 14 stand for one and two more bytes of the token's length.
EXTENDED_TOKENS = {
    "49010001001122334455667788": 9,
    "4c010001" + "00" * 12: 12,
    "4d01000100" + "00" * 13: 13,
    "4d010001ff" + "00" * 268: 268,
    "4e0100010000" + "00" * 269: 269,
    "4e010001ffff" + "00" * 65_804: 65_804,
}


@pytest.mark.parametrize(("datagram", "size"), EXTENDED_TOKENS.items(), ids=EXTENDED_TOKENS.values())
def test_extended_tokens_of_rfc_8974(datagram: str, size: int) -> None:
    message = decode(bytes.fromhex(datagram))
    assert len(message.token) == size
    assert encode(message) == bytes.fromhex(datagram)


# Values of Block1 and Block2 as RFC 7959 section 3 writes them, NUM/M/size, in their place after Uri-Path.
BLOCKS = {
    # 3.1, figure 2: CON [MID=1236], GET, /status, 2:2/0/128.
    "400104d4b6737461747573c123": Message(0, 0x01, 1236, b"", ((11, b"status"), (23, b"\x23"))),
    # 3.2, figure 7: CON [MID=1234], PUT, /options, 1:0/1/128, and its 2.31 Continue.
    "400304d2b76f7074696f6e73d1030b": Message(0, 0x03, 1234, b"", ((11, b"options"), (27, b"\x0b"))),
    "605f04d2d10e0b": Message(2, 0x5F, 1234, b"", ((27, b"\x0b"),)),
}


@pytest.mark.parametrize(("datagram", "message"), BLOCKS.items())
def test_block_options_of_rfc_7959(datagram: str, message: Message) -> None:
    assert decode(bytes.fromhex(datagram)) == message
    assert encode(message) == bytes.fromhex(datagram)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        ("", "coap_too_short"),
        ("400100", "coap_too_short"),
        ("00010001", "coap_unknown_version"),
        ("80010001", "coap_unknown_version"),
        ("490100010011223344556677", "coap_truncated_token"),
        ("4d010001", "coap_truncated_token"),
        ("4d01000100", "coap_truncated_token"),
        ("4e01000100", "coap_truncated_token"),
        ("4e010001ffff00", "coap_truncated_token"),
        ("4f010001", "coap_token_length"),
        ("4201000111", "coap_truncated_token"),
        ("4000000100", "coap_empty_with_content"),
        ("4100000100", "coap_empty_with_content"),
        ("40010001f0", "coap_option_header"),
        ("400100010f", "coap_option_header"),
        ("40010001b3abcd", "coap_truncated_option"),
        ("40010001d0", "coap_truncated_option"),
        ("40010001e000", "coap_truncated_option"),
        ("400100010d", "coap_truncated_option"),
        ("400100010e00", "coap_truncated_option"),
        ("400100010e0000", "coap_truncated_option"),
        ("40010001e0fef3", "coap_option_number"),
        ("40010001e0fef210", "coap_option_number"),
        ("40010001ff", "coap_empty_payload"),
        ("40010001b161ff", "coap_empty_payload"),
    ],
)
def test_what_is_malformed(datagram: str, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(bytes.fromhex(datagram))
    assert caught.value.reason == reason


def test_the_largest_option_number_and_length() -> None:
    message = Message(1, 2, 0xFFFF, bytes(8), ((65535, bytes(65804)),), b"\xff")
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Message(4, 1, 0),
        Message(0, 256, 0),
        Message(0, 1, 65536),
        Message(0, 1, 0, bytes(65_805)),
        Message(0, 1, 0, b"", ((11, b""), (6, b""))),
        Message(0, 1, 0, b"", ((65536, b""),)),
    ],
)
def test_what_cannot_be_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match=r"range|order"):
        encode(message)


options = st.lists(
    st.tuples(st.integers(0, 65535), st.binary(max_size=20) | st.binary(min_size=250, max_size=300)),
    max_size=6,
).map(lambda found: tuple(sorted(found, key=lambda option: option[0])))
messages = st.builds(
    Message,
    st.integers(0, 3),
    st.integers(1, 255),
    st.integers(0, 65535),
    st.binary(max_size=8),
    options,
    st.binary(max_size=40),
)


@given(messages)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


# Opaque and text options, which aiocoap keeps as they are.
plain_options = st.lists(
    st.tuples(st.sampled_from([1, 11, 15, 252, 292, 2048, 65001]), st.binary(max_size=300)), max_size=5
).map(lambda found: tuple(sorted(found, key=lambda option: option[0])))
text_numbers = (11, 15)


def is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


oracle_messages = st.builds(
    Message,
    st.integers(0, 3),
    st.sampled_from([1, 2, 3, 5, 0x41, 0x44, 0x45, 0x5F, 0x80, 0x84, 0xA0, 0xA3]),
    st.integers(0, 65535),
    st.binary(max_size=8),
    plain_options.map(
        lambda found: tuple(option for option in found if option[0] not in text_numbers or is_text(option[1]))
    ),
    st.binary(max_size=40),
)


@given(oracle_messages)
def test_aiocoap_decodes_what_we_encode(message: Message) -> None:
    theirs = aiocoap.Message.decode(encode(message))
    assert (int(theirs.mtype), int(theirs.code), theirs.mid) == message[:3]
    assert (theirs.token, theirs.payload) == (message.token, message.payload)
    assert [(int(option.number), option.encode()) for option in theirs.opt.option_list()] == list(
        message.options
    )


@given(oracle_messages)
def test_we_decode_what_aiocoap_encodes(message: Message) -> None:
    theirs = aiocoap.Message(
        code=message.code, _mtype=Type(message.type), _mid=message.message_id, _token=message.token,
        payload=message.payload,
    )  # fmt: skip
    for number, value in message.options:
        theirs.opt.add_option(OptionNumber(number).create_option(decode=value))
    assert decode(theirs.encode()) == message
