"""The framing of CoAP over streams: vectors of RFC 8323, every split of a stream, and aiocoap's codec as the oracle."""

import aiocoap
import pytest
from aiocoap.numbers.types import Type
from aiocoap.transports import tcp
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.coap import Message
from kaa_gateway.wire.coap_stream import decode_stream, encode_stream

STREAM = 4

VECTORS = {
    # RFC 8323 section 3.2, figure 6: 0x01 0x43 0x7f, an empty 2.03 with a token of one byte.
    "01437f": Message(STREAM, 0x43, 0, b"\x7f"),
    # Section 4.2, figure 11, has the same with length 0 over WebSocket.
    # The signaling messages of section 5: CSM, Ping, Pong, Release, Abort.
    "00e1": Message(STREAM, 0xE1, 0),
    "30e1220480": Message(STREAM, 0xE1, 0, b"", ((2, b"\x04\x80"),)),
    "01e242": Message(STREAM, 0xE2, 0, b"\x42"),
    "01e342": Message(STREAM, 0xE3, 0, b"\x42"),
    "00e4": Message(STREAM, 0xE4, 0),
    "00e5": Message(STREAM, 0xE5, 0),
}


@pytest.mark.parametrize(("data", "message"), VECTORS.items())
def test_vectors_of_rfc_8323(data: str, message: Message) -> None:
    assert decode_stream(bytes.fromhex(data)) == ([message], b"")
    assert encode_stream(message) == bytes.fromhex(data)


@pytest.mark.parametrize(
    ("length", "front"),
    [
        (12, "c002"),
        (13, "d00002"),
        (268, "d0ff02"),
        (269, "e0000002"),
        (65_804, "e0ffff02"),
        (65_805, "f00000000002"),
        (70_000, "f00000106302"),
    ],
)
def test_lengths_of_every_form(length: int, front: str) -> None:
    """Section 3.2: nibbles 13, 14 and 15 stand for one, two and four more bytes."""
    message = Message(STREAM, 2, 0, b"", (), bytes(length - 1))
    data = encode_stream(message)
    assert data.startswith(bytes.fromhex(front) + b"\xff")
    assert decode_stream(data) == ([message], b"")


def test_a_websocket_message_has_no_length() -> None:
    """Section 4.2: the length is that of the WebSocket message, and the nibble is 0."""
    message = Message(STREAM, 0x45, 0, b"\x7f", (), b"x" * 300)
    assert encode_stream(message, has_length=False) == b"\x01\x45\x7f\xff" + b"x" * 300


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("0f02", "coap_token_length"),
        ("1002ff", "coap_empty_payload"),
        ("1002f0", "coap_option_header"),
        ("2002b361", "coap_truncated_option"),
        ("1002d0", "coap_truncated_option"),
    ],
)
def test_what_is_malformed(data: str, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_stream(bytes.fromhex(data))
    assert caught.value.reason == reason


messages = st.builds(
    Message,
    st.just(STREAM),
    st.sampled_from([1, 2, 3, 5, 0x41, 0x44, 0x45, 0x5F, 0x80, 0x84, 0xA0, 0xA3]),
    st.just(0),
    st.binary(max_size=8) | st.binary(min_size=9, max_size=300),
    st.lists(
        st.tuples(st.sampled_from([1, 252, 292, 2048, 65_001]), st.binary(max_size=300)), max_size=5
    ).map(lambda found: tuple(sorted(found, key=lambda option: option[0]))),
    st.binary(max_size=40) | st.binary(min_size=250, max_size=300),
)


@given(st.lists(messages, max_size=4), st.integers(0, 2000))
def test_a_stream_may_be_split_anywhere(sent: list[Message], at: int) -> None:
    data = b"".join(map(encode_stream, sent))
    first, rest = decode_stream(data[:at])
    second, none = decode_stream(rest + data[at:])
    assert (first + second, none) == (sent, b"")


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    try:
        found, rest = decode_stream(data)
    except ProtocolError:
        return
    assert sum(len(encode_stream(message)) for message in found) + len(rest) <= len(data)
    assert data.endswith(rest)


@given(messages.filter(lambda message: len(message.token) <= 8))
def test_aiocoap_decodes_what_we_encode(message: Message) -> None:
    data = encode_stream(message)
    header, token_size, payload_size = tcp._extract_message_size(data)
    assert header + token_size + payload_size == len(data)
    decoded = tcp._decode_message(data)
    assert (int(decoded.code), decoded.token, decoded.payload) == (
        message.code,
        message.token,
        message.payload,
    )
    assert [(int(each.number), each.encode()) for each in decoded.opt.option_list()] == list(message.options)


@given(st.binary(max_size=8), st.binary(max_size=20_000))
def test_what_aiocoap_encodes_is_decoded(token: bytes, payload: bytes) -> None:
    message = aiocoap.Message(code=aiocoap.POST, payload=payload, uri_path=("kp1", "app"), _mtype=Type.CON)
    message.token = token
    (decoded,), rest = decode_stream(tcp._serialize(message))
    assert rest == b""
    assert (decoded.token, decoded.payload) == (token, payload)
    assert decoded.options == ((11, b"kp1"), (11, b"app"))
