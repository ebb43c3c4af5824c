"""The NATS client protocol: vectors of its documentation, limits, split streams, garbage.

Source: NATS documentation, "Client Protocol"; ADR-4 "NATS Message Headers".
"""

import re
from collections.abc import Callable
from pathlib import Path

import kaa_gateway.wire.nats
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.nats import (
    Message,
    decode,
    decode_all,
    decode_publication,
    encode_publish,
    encode_publish_head,
    encode_subscribe,
)

INFO = b'{"server_id":"Zk0GQ3JBSrg3oyxCRRlE09","version":"2.12.0","headers":true,"max_payload":1048576}'
NO_RESPONDERS = b"NATS/1.0 503\r\nNats-Subject: kaa.v1.service.dcx.esp.ClientData\r\n\r\n"

CONTROL_LINE_MAX = 4096
INFO_LINE_MAX = 1024 * 1024
PAYLOAD_MAX = 64 * 1024 * 1024


def delivery(subject: bytes, sid: bytes, reply: bytes | None, payload: bytes) -> Message:
    return Message("MSG", subject, sid, reply, None, payload)


def sign(operation: str, payload: bytes = b"") -> Message:
    return Message(operation, None, None, None, None, payload)


VECTORS = [
    ("INFO", b"INFO " + INFO + b"\r\n", sign("INFO", INFO)),
    ("MSG", b"MSG FOO.BAR 9 11\r\nHello World\r\n", delivery(b"FOO.BAR", b"9", None, b"Hello World")),
    (
        "MSG with a reply-to",
        b"MSG FOO.BAR 9 GREETING.34 11\r\nHello World\r\n",
        delivery(b"FOO.BAR", b"9", b"GREETING.34", b"Hello World"),
    ),
    ("MSG of nothing", b"MSG NOTIFY 1 0\r\n\r\n", delivery(b"NOTIFY", b"1", None, b"")),
    ("MSG with CR LF inside", b"MSG a 1 4\r\n\r\n\r\n\r\n", delivery(b"a", b"1", None, b"\r\n\r\n")),
    ("MSG with tabs and blanks", b"MSG  a\t1  2\r\nhi\r\n", delivery(b"a", b"1", None, b"hi")),
    ("MSG with leading zeros", b"MSG a 1 000000002\r\nhi\r\n", delivery(b"a", b"1", None, b"hi")),
    ("MSG in lower case", b"msg a 1 2\r\nhi\r\n", delivery(b"a", b"1", None, b"hi")),
    (
        "HMSG",
        b"HMSG FOO.BAR 9 34 45\r\nNATS/1.0\r\nFoodGroup: vegetable\r\n\r\nHello World\r\n",
        Message("HMSG", b"FOO.BAR", b"9", None, b"NATS/1.0\r\nFoodGroup: vegetable\r\n\r\n", b"Hello World"),
    ),
    (
        "HMSG with a reply-to",
        b"HMSG FOO.BAR 9 BAZ.69 34 45\r\nNATS/1.0\r\nFoodGroup: vegetable\r\n\r\nHello World\r\n",
        Message(
            "HMSG", b"FOO.BAR", b"9", b"BAZ.69", b"NATS/1.0\r\nFoodGroup: vegetable\r\n\r\n", b"Hello World"
        ),
    ),
    (
        "HMSG that says: no responders",
        b"HMSG r 2 %d %d\r\n%b\r\n" % (len(NO_RESPONDERS), len(NO_RESPONDERS), NO_RESPONDERS),
        Message("HMSG", b"r", b"2", None, NO_RESPONDERS, b""),
    ),
    ("+OK", b"+OK\r\n", sign("+OK")),
    (
        "-ERR",
        b"-ERR 'Unknown Protocol Operation'\r\n",
        sign("-ERR", b" 'Unknown Protocol Operation'"),
    ),
    ("PING", b"PING\r\n", sign("PING")),
    ("PONG", b"PONG\r\n", sign("PONG")),
    ("ping in lower case", b"ping\r\n", sign("PING")),
    ("pong in mixed case", b"pOnG\r\n", sign("PONG")),
]

parametrize_vectors = pytest.mark.parametrize(
    ("octets", "message"), [pytest.param(octets, message, id=title) for title, octets, message in VECTORS]
)


@parametrize_vectors
def test_vector(octets: bytes, message: Message) -> None:
    assert decode(octets) == (message, len(octets))


@parametrize_vectors
def test_message_split_at_every_byte_waits_for_the_rest(octets: bytes, message: Message) -> None:
    for size in range(len(octets)):
        assert decode(octets[:size]) == (None, 0)
    assert decode(octets + b"\xff\r\n") == (message, len(octets))


FIELDS = st.sampled_from(
    [b"MSG a.b 1 ", b"MSG a.b 12 ", b"MSG a.b 1 r.s ", b"MSG a.b  1 ", b"MSG a.b 1 x", b"MSG a 1 ", b"msg a.b 1 ",
     b"MSG a.b 1\t", b"MSG a.b 1 00", b"MSG a.b 1  "]
)  # fmt: skip
SIZES = st.sampled_from([b"0", b"3", b"2", b"0003", b"-1", b"3x", b"3 ", b"", b"1234567890"])
DELIVERIES = st.tuples(FIELDS, SIZES, st.sampled_from([b"\r\n", b"\n", b" \r\n"]), st.just(b"abc\r\n")).map(
    b"".join
)


def outcome(reading: Callable[[], object]) -> object:
    try:
        return reading()
    except ProtocolError as error:
        return error.reason


@given(st.lists(st.one_of(DELIVERIES, st.just(b"PING\r\n")), max_size=6).map(b"".join), st.integers(0, 20))
@example(b"MSG a.b 1 3\r\nabc\r\n" * 2 + b"MSG a.b 1 r.s 3\r\nabc\r\n", 0)
def test_a_message_is_read_the_same_whatever_came_before_it(stream: bytes, cut: int) -> None:
    """The one before it is remembered, because the next is mostly of the same subscription."""
    stream = stream[: len(stream) - cut]

    def one_by_one() -> tuple[list[Message], int]:
        messages, at = [], 0
        while (read := decode(stream[at:]))[0] is not None:
            messages.append(read[0])
            at += read[1]
        return messages, at

    assert outcome(lambda: decode_all(stream)) == outcome(one_by_one)


def test_a_stream_is_cut_into_its_messages() -> None:
    stream = b"".join(octets for _, octets, _ in VECTORS)
    messages = []
    while stream:
        message, consumed = decode(stream)
        messages.append(message)
        stream = stream[consumed:]
    assert messages == [message for _, _, message in VECTORS]


# ---------------------------------------------------------------- violations

VIOLATIONS = [
    ("unknown_operation", b"HTTP/1.1 400 Bad Request\r\n"),
    ("unknown_operation", b"\r\n"),
    ("unknown_operation", b"MSG\r\n"),
    ("unknown_operation", b"PIN\r\n"),
    ("unknown_operation", b"PUB a 1\r\n"),
    ("malformed_line", b"PING\n"),
    ("malformed_line", b"\n"),
    ("line_too_long", b"M" * CONTROL_LINE_MAX),
    ("line_too_long", b"INFO " + b" " * INFO_LINE_MAX),
    ("malformed_msg", b"MSG a 1\r\n"),
    ("malformed_msg", b"MSG a 1 r 2 3\r\n"),
    ("malformed_msg", b"MSG a 1 -1\r\n"),
    ("malformed_msg", b"MSG a 1 0x2\r\nhi\r\n"),
    ("malformed_msg", b"MSG a 1 +2\r\nhi\r\n"),
    ("malformed_msg", b"MSG a 1 0000000002\r\nhi\r\n"),
    ("malformed_msg", b"MSG a 1 18446744073709551618\r\nhi\r\n"),
    ("malformed_msg", b"MSG a 1 2\r\nhi!!"),
    ("malformed_msg", b"MSG a 1 2\r\nhi\r!"),
    ("malformed_msg", b"HMSG a 1 5\r\n"),
    ("malformed_msg", b"HMSG a 1 r 2 3 4\r\n"),
    ("malformed_msg", b"HMSG a 1 3 2\r\nhi\r\n"),
    ("malformed_msg", b"HMSG a 1 x 2\r\nhi\r\n"),
    ("payload_too_large", b"MSG a 1 999999999\r\n"),
    ("payload_too_large", b"HMSG a 1 12 67108865\r\n"),
]


@pytest.mark.parametrize(
    ("reason", "octets"),
    [pytest.param(reason, octets, id=f"{octets[:40]!r}") for reason, octets in VIOLATIONS],
)
def test_violation(reason: str, octets: bytes) -> None:
    with pytest.raises(ProtocolError) as failure:
        decode(octets)
    assert failure.value.reason == f"nats_{reason}"


def test_every_reason_of_the_decoder_is_in_the_table() -> None:
    source = Path(kaa_gateway.wire.nats.__file__).with_name("nats.pyx").read_text(encoding="utf-8")
    reasons = set(re.findall(r'\bviolation\("(\w+)"', source))
    assert len(reasons) > 3
    assert reasons == {reason for reason, _ in VIOLATIONS}


def test_limits_are_reached_and_not_passed() -> None:
    line = b"-ERR " + b"x" * (CONTROL_LINE_MAX - 7) + b"\r\n"
    assert len(line) == CONTROL_LINE_MAX
    assert decode(line)[1] == len(line)
    assert decode(line[:-1]) == (None, 0)
    with pytest.raises(ProtocolError, match="nats_line_too_long"):
        decode(b"-" + line)
    info = b"INFO " + b" " * (INFO_LINE_MAX - 7) + b"\r\n"
    assert decode(info)[1] == len(info)
    assert decode(b"MSG a 1 %d\r\n" % PAYLOAD_MAX) == (None, 0)
    assert decode(b"MSG a 1 5\r\nhello\r\n", 5)[1] == 18
    with pytest.raises(ProtocolError, match="nats_payload_too_large"):
        decode(b"MSG a 1 6\r\n", 5)


words = st.sampled_from([b"MSG", b"HMSG", b"INFO", b"PING", b"+OK", b"-ERR", b"a", b"1", b"12", b"999999999"])
separators = st.sampled_from([b" ", b"\t", b"\r\n", b"\n", b"", b"NATS/1.0 503\r\n\r\n"])


@settings(max_examples=300)
@given(st.binary(max_size=80) | st.lists(words | separators, max_size=14).map(b"".join))
def test_garbage_is_read_refused_or_waited_on(octets: bytes) -> None:
    try:
        message, consumed = decode(octets)
    except ProtocolError:
        return
    assert (message is None) == (consumed == 0)
    assert consumed <= len(octets)


subjects = st.text("abcXYZ019_-.", min_size=1, max_size=40)
payloads = st.binary(max_size=300)
headers = st.binary(max_size=60).map(lambda value: b"NATS/1.0\r\nX: " + value.hex().encode() + b"\r\n\r\n")


@given(subjects, st.integers(1, 10**9), st.none() | subjects, st.none() | headers, payloads)
def test_whatever_a_server_delivers_is_read(
    subject: str, sid: int, reply: str | None, header: bytes | None, payload: bytes
) -> None:
    fields = [b"MSG" if header is None else b"HMSG", subject.encode(), str(sid).encode()]
    if reply is not None:
        fields.append(reply.encode())
    if header is not None:
        fields.append(str(len(header)).encode())
    fields.append(str(len(header or b"") + len(payload)).encode())
    octets = b" ".join(fields) + b"\r\n" + (header or b"") + payload + b"\r\n"
    assert decode(octets) == (
        Message(
            fields[0].decode(),
            subject.encode(),
            str(sid).encode(),
            reply.encode() if reply else None,
            header,
            payload,
        ),
        len(octets),
    )


# ---------------------------------------------------------------- what we write

names = st.binary(min_size=1, max_size=40).map(lambda name: re.sub(rb"[\x00-\x20]", b".", name))


@given(
    names,
    names,
    st.none() | names | st.just(b"12"),
    st.binary(max_size=40),
    st.sampled_from([b"\t", b"  ", b" \t"]),
    st.integers(0, 200),
)
def test_the_form_that_a_server_writes_is_read_as_any_other(
    subject: bytes, sid: bytes, reply: bytes | None, payload: bytes, blanks: bytes, kept: int
) -> None:
    fields = [subject, sid, *([] if reply is None else [reply]), b"%d" % len(payload)]
    plain, other = (b"MSG " + blank.join(fields) + b"\r\n" + payload + b"\r\n" for blank in (b" ", blanks))
    message, consumed = decode(plain)
    assert message == delivery(subject, sid, reply, payload)
    assert (message, consumed) == (decode(other)[0], len(plain))
    if kept < len(plain):
        assert decode(plain[:kept]) == (None, 0)


PUBLICATION = re.compile(rb"PUB ([^ \t\r\n]+) (?:([^ \t\r\n]+) )?([0-9]+)\r\n")
"""PUB <subject> [reply-to] <#bytes>: the oracle for what we write."""


@example("FOO", None, b"Hello NATS!")
@example("FRONT.DOOR", "JOKE.22", b"Knock Knock")
@example("NOTIFY", None, b"")
@given(subjects, st.none() | subjects, payloads)
def test_publication(subject: str, reply: str | None, payload: bytes) -> None:
    octets = encode_publish(subject, reply, payload)
    line = PUBLICATION.match(octets)
    assert line is not None
    assert line.groups() == (subject.encode(), reply and reply.encode(), str(len(payload)).encode())
    assert octets[line.end() :] == payload + b"\r\n"
    assert octets.startswith(encode_publish_head(subject, reply))


def test_publication_vectors() -> None:
    assert encode_publish("FOO", None, b"Hello NATS!") == b"PUB FOO 11\r\nHello NATS!\r\n"
    assert encode_publish("FRONT.DOOR", "JOKE.22", b"Knock Knock") == (
        b"PUB FRONT.DOOR JOKE.22 11\r\nKnock Knock\r\n"
    )
    assert encode_publish("NOTIFY", None, b"") == b"PUB NOTIFY 0\r\n\r\n"
    mebibyte = bytes(1024 * 1024)
    assert encode_publish("a", "b", mebibyte) == b"PUB a b 1048576\r\n" + mebibyte + b"\r\n"


def test_subscription_vectors() -> None:
    assert encode_subscribe("FOO", 1) == b"SUB FOO 1\r\n"
    assert encode_subscribe("BAR", 44, "G1") == b"SUB BAR G1 44\r\n"


def test_a_publication_with_a_header() -> None:
    header = b"NATS/1.0\r\nFoodGroup: vegetable\r\n\r\n"
    assert encode_publish("FRONT.DOOR", "JOKE.22", b"Knock Knock", header) == (
        b"HPUB FRONT.DOOR JOKE.22 34 45\r\n" + header + b"Knock Knock\r\n"
    )
    assert encode_publish("NOTIFY", None, b"", header) == b"HPUB NOTIFY 34 34\r\n" + header + b"\r\n"


@given(subjects, subjects, headers | st.just(b""), payloads, st.binary(max_size=20))
def test_what_we_wrote_is_found_again(
    subject: str, reply: str, header: bytes, payload: bytes, rest: bytes
) -> None:
    octets = encode_publish(subject, reply, payload, header)
    fields = (subject.encode(), reply.encode(), header, payload, len(octets))
    assert decode_publication(octets + rest) == fields
    for size in range(len(octets)):
        assert decode_publication(octets[:size]) is None


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"PING\r\n",
        b"PUB a b x\r\nx\r\n",
        b"HPUB a b 1\r\nx\r\n",
        b"HPUB a b 2 1\r\nx\r\n",
        b"HPUB a b -1 1\r\nx\r\n",
        b"XPUB a b 1 1\r\nx\r\n",
    ],
)
def test_what_we_never_write_is_no_publication(octets: bytes) -> None:
    assert decode_publication(octets) is None
