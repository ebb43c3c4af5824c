"""The parser beside llhttp, the parser of Node.js, as httptools has it: both read a request in the same way.

llhttp is shown the head as another server would understand it: it takes the body behind an Upgrade field for bytes of
another protocol, and refuses blanks behind some values, which are no part of them (RFC 9110 section 5.5).
"""

import re

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kaa_gateway.http.parser import RequestLimits, read_requests

from tests.unit.http.test_parser import CHUNKED, HEAD, MUTATIONS, NEXT, REQUESTS, SMUGGLING

LIMITS = RequestLimits(1024, 4096, 1024)
STRICTER = {
    "other coding first",  # no coding but chunked is known
    "two hosts",
    "no host",
    "list of hosts",
    "host with a path",
    "two spaces",
    "two spaces before the version",
    "space after the version",
}
"""What only we refuse."""
OTHER_METHODS = (b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"OPTIONS", b"HEAD")


class Request:
    """What llhttp says about the first request of a stream."""

    def __init__(self, data: bytes) -> None:
        self.target = b""
        self.body = b""
        self.persists = False
        self.complete = False
        self._parser = httptools.HttpRequestParser(self)
        head, end, rest = data.partition(b"\r\n\r\n")
        head = re.sub(rb"(?im)^upgrade:", b"Ignored:", head)
        head = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", head)
        try:
            self._parser.feed_data(head + end + rest)
        except httptools.HttpParserError:
            self.refused = True
        else:
            self.refused = False

    def on_url(self, url: bytes) -> None:
        if not self.complete:
            self.target += url

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body += body

    def on_message_complete(self) -> None:
        if not self.complete:
            self.persists = self._parser.should_keep_alive()
        self.complete = True


def first(data: bytes) -> tuple[bytes, bytes, bool] | None:
    requests, _ = read_requests([data], LIMITS)
    return requests[0] if requests else None


def assert_the_same(data: bytes) -> None:
    """Assert that llhttp reads the first request as we do, if we read one."""
    ours = first(data)
    if ours is None:
        return
    theirs = Request(data)
    assert theirs.complete, (data, ours)
    assert ours[:2] == (theirs.target, theirs.body), data
    assert ours[2] <= theirs.persists, data


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_the_same_to_llhttp(name: str) -> None:
    theirs = Request(REQUESTS[name][0])
    assert (theirs.complete, theirs.refused) == (True, False)
    assert first(REQUESTS[name][0]) == (theirs.target, theirs.body, theirs.persists)


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_is_refused_is_refused_by_llhttp_or_on_purpose(name: str) -> None:
    theirs = Request(SMUGGLING[name] + NEXT)
    assert (theirs.complete and not theirs.refused) == (name in STRICTER)


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_a_request_of_another_method_ends_where_llhttp_ends_it(method: bytes) -> None:
    for fields in (
        b"Content-Length: 3\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"\r\n",
    ):
        data = HEAD.replace(b"POST", method) + fields
        theirs = Request(data)
        assert theirs.complete
        assert first(data) == (theirs.target, theirs.body, theirs.persists)


FIELD_CHARACTERS = st.binary(min_size=1, max_size=4)


@given(st.sampled_from(sorted(REQUESTS)), MUTATIONS)
def test_a_damaged_request_that_is_taken_is_the_same_to_llhttp(
    name: str, mutations: list[tuple[int, bytes]]
) -> None:
    data = REQUESTS[name][0]
    for position, inserted in mutations:
        data = data[:position] + inserted + data[position:]
    assert_the_same(data)


@given(FIELD_CHARACTERS, FIELD_CHARACTERS)
def test_characters_of_a_field_are_those_of_llhttp(name: bytes, value: bytes) -> None:
    assert_the_same(HEAD + name + b": " + value + b"\r\n\r\n")


@pytest.mark.parametrize(
    "place", ["name", "value", "target", "method", "size", "extension", "extension value"]
)
def test_each_character_is_taken_as_llhttp_takes_it(place: str) -> None:
    for code in range(256):
        character = bytes([code])
        data = {
            "name": HEAD + b"X" + character + b"Y: z\r\n\r\n",
            "value": HEAD + b"X: y" + character + b"z\r\n\r\n",
            "target": HEAD.replace(b"/kp1/v", b"/kp1/v" + character) + b"\r\n",
            "method": HEAD.replace(b"POST", b"PO" + character + b"ST") + b"\r\n",
            "size": CHUNKED + b"1" + character + b"\r\n" + bytes(17) + b"\r\n0\r\n\r\n",
            "extension": CHUNKED + b"1;a" + character + b"\r\na\r\n0\r\n\r\n",
            "extension value": CHUNKED + b'1;a="' + character + b'"\r\na\r\n0\r\n\r\n',
        }[place]
        theirs = Request(data)
        ours = first(data)
        if (place, character) == ("extension", b"="):
            assert ours is None, "only llhttp takes an extension with an empty value"
            continue
        assert (ours is not None) == theirs.complete, (place, character)
        if ours is not None:
            assert ours[:2] == (theirs.target, theirs.body)


@given(
    st.lists(
        st.sampled_from([b"close", b"keep-alive", b"Close", b"upgrade", b"x", b"", b" ", b"\t", b"closed"]),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
@example([b"keep-alive", b"close"], False)
def test_persistence_is_that_of_llhttp(options: list[bytes], older: bool) -> None:
    version = b"HTTP/1.0" if older else b"HTTP/1.1"
    data = HEAD.replace(b"HTTP/1.1", version) + b"Connection: " + b",".join(options) + b"\r\n\r\n"
    assert_the_same(data)


@given(
    st.lists(
        st.sampled_from([b"0", b"a", b"F", b"1;x", b"1;x=y", b'1;x="\\""', b"\r\n", b"abc", b"X: y"]),
        max_size=12,
    )
)
def test_chunks_are_those_of_llhttp(parts: list[bytes]) -> None:
    assert_the_same(CHUNKED + b"\r\n".join(parts) + b"\r\n\r\n")
