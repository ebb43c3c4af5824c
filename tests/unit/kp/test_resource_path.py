"""Resource paths and request IDs. Source: 1/KP; "How real Kaa clients behave" in its condensed form."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kaa_gateway.kp.resource_path import is_clean_text, parse, request_id_of

INT32_MAX = 2**31 - 1


@pytest.mark.parametrize(
    ("topic", "parts"),
    [
        ("kp1/v1/dcx/token/json", ("v1", "dcx", "/token/json")),
        ("kp1/v1/dcx/token/json/1", ("v1", "dcx", "/token/json/1")),
        ("kp1/v1/tsx", ("v1", "tsx", "")),
        ("kp1/v1/tsx/", ("v1", "tsx", "/")),
        ("kp1/v1/tsx//", ("v1", "tsx", "//")),
        ("kp1/v1/tsx//json", ("v1", "tsx", "//json")),
        ("kp1/kp1/kp1/kp1", ("kp1", "kp1", "/kp1")),
        ("kp1/vérsion/dcx/端末", ("vérsion", "dcx", "/端末")),
        ("kp1/1/2/3", ("1", "2", "/3")),
        ("", None),
        ("kp1", None),
        ("kp1/", None),
        ("kp1//", None),
        ("kp1/v1", None),
        ("kp1/v1/", None),
        ("kp1/v1//token", None),
        ("kp1//dcx/token", None),
        ("/kp1/v1/dcx/token", None),
        ("KP1/v1/dcx/token", None),
        ("kp2/v1/dcx/token", None),
        ("kp1x/v1/dcx/token", None),
        ("kp/v1/dcx/token", None),
    ],
)
def test_resource_path(topic: str, parts: tuple[str, str, str] | None) -> None:
    assert parse(topic.encode()) == (None if parts is None else tuple(map(str.encode, parts)))


@pytest.mark.parametrize(
    ("topic", "base", "request_id"),
    [
        ("kp1/v1/dcx/token/json/1", "kp1/v1/dcx/token/json", 1),
        ("kp1/v1/dcx/token/json/0", "kp1/v1/dcx/token/json", 0),
        ("a/2147483647", "a", INT32_MAX),
        ("a/0000000007", "a", 7),
        ("a//5", "a/", 5),
        ("/5", "", 5),
        # What does not fit Avro's int, or is no number, is a level of the path.
        ("a/2147483648", None, None),
        ("a/4294967296", None, None),
        ("a/9999999999", None, None),
        ("a/00000000007", None, None),
        ("a/18446744073709551617", None, None),
        ("a/" + "9" * 400, None, None),
        ("a/-1", None, None),
        ("a/+1", None, None),
        ("a/1.0", None, None),
        ("a/ 1", None, None),
        ("a/1/", None, None),
        ("a/x1", None, None),
        ("a/1x", None, None),
        ("a/\u0661", None, None),
        ("a/", None, None),
        ("a", None, None),
        ("5", None, None),
        ("", None, None),
    ],
)
def test_request_id(topic: str, base: str | None, request_id: int | None) -> None:
    expected = topic if base is None else base
    assert request_id_of(topic.encode()) == (expected.encode(), request_id)


@given(st.text("ab/01", max_size=12), st.integers(0, INT32_MAX))
def test_a_request_id_is_cut_off_once(base: str, request_id: int) -> None:
    assert request_id_of(f"{base}/{request_id}".encode()) == (base.encode(), request_id)


@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from(["kp1", "v", "", "12", "é"])).map(lambda p: "/".join(p).encode())
)
def test_any_bytes_are_taken_apart_without_loss(topic: bytes) -> None:
    base, request_id = request_id_of(topic)
    assert topic.startswith(base)
    assert (base == topic) == (request_id is None)
    parts = parse(topic)
    if parts is not None:
        assert b"kp1/" + parts[0] + b"/" + parts[1] + parts[2] == topic
        assert all(part and b"/" not in part for part in parts[:2])
        assert parts[2][:1] in (b"", b"/")


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
@example(b"a" * 7 + b"\x7f")
@example(b"\x1f" + b" " * 7)
@example(b"kp1/app~" * 3)
@example("ü".encode() * 8)
@example(b"\xc2\x9b" + b"a" * 8)  # C1: CSI
@example(b"\xed\xa0\x80" + b"a" * 8)  # a surrogate
def test_clean_text_is_utf_8_without_control_characters(text: bytes) -> None:
    try:
        clean = all(unicodedata.category(character) != "Cc" for character in text.decode())
    except UnicodeDecodeError:
        clean = False
    assert is_clean_text(text) == clean
