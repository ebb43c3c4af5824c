"""Requests out of a byte stream: every split, every limit, and what must not be taken for a request.

Smuggling vectors name the CVE that they are after; a body or head that two parsers could delimit differently must end
the connection with nothing behind it read as a request.
"""

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_gateway.http.parser import RequestLimits, read_requests

LIMITS = RequestLimits(1024, 1024, 256)
HEAD = b"POST /kp1/v/x HTTP/1.1\r\nHost: gateway\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"POST /kp1/smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n"

REQUESTS = {
    "sized": (HEAD + b"Content-Length: 5\r\n\r\nhel\nl", b"hel\nl", True),
    "length with zeros before it": (HEAD + b"Content-Length: %060d\r\n\r\nhello" % 5, b"hello", True),
    "empty": (HEAD + b"\r\n", b"", True),
    "zero length": (HEAD + b"Content-Length: 0\r\n\r\n", b"", True),
    "chunked": (CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello", True),
    "chunked lines": (CHUNKED + b"6\r\n\r\n\n0\r\n\r\n0\r\nTrailer: x\r\n\r\n", b"\r\n\n0\r\n", True),
    "coding in capitals": (HEAD + b"TRANSFER-ENCODING: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a", True),
    "close": (HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\na", b"a", False),
    "1.0": (b"POST /kp1/v/x HTTP/1.0\r\nContent-Length: 1\r\n\r\na", b"a", False),
    "1.0 kept": (
        b"POST /kp1/v/x HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", b"a", True,
    ),
    "upgrade ignored": (
        HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab", b"ab", True,
    ),
    "upgrade with chunks": (
        HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
        b"Transfer-encoding: chunked\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/21\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"ab", True,
    ),
    "upgrade without a body": (HEAD + b"UPGRADE: TLS/1.0\r\nConnection: upgrade\r\n\r\n", b"", True),
    "upgrades": (
        HEAD + b"upgrade: a\r\nUpgrade-Insecure-Requests: 1\r\nConnection: upgrade\r\nUpgrade: b\r\n"
        b"Content-Length: 1\r\n\r\na",
        b"a", True,
    ),
    "upgrade and close": (
        HEAD + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\na", b"a", False,
    ),
    "blanks behind a length": (HEAD + b"Content-Length: 1 \t\r\n\r\na", b"a", True),
    "blanks behind a coding": (HEAD + b"Transfer-Encoding: chunked \t\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a", True),
    "blanks behind an expectation": (HEAD + b"Expect: 100-continue\t \r\nContent-Length: 1\r\n\r\na", b"a", True),
    "blanks behind close": (HEAD + b"Connection: close \t\r\nContent-Length: 1\r\n\r\na", b"a", False),
    "blanks behind a host": (
        b"POST /kp1/v/x HTTP/1.1\r\nHost: \t gateway:80 \t\r\nContent-Length: 1\r\n\r\na", b"a", True,
    ),
    "blanks behind what is ignored": (HEAD + b"Upgrade: a \r\nX: \t\r\nContent-Length: 1\r\n\r\na", b"a", True),
    "trailer that is no header": (CHUNKED + b"0\r\nExpect: x\r\nHost: b\r\n\r\n", b"", True),
    "expectation": (HEAD + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\na", b"a", True),
}  # fmt: skip


def read(
    *pieces: bytes, limits: RequestLimits = LIMITS
) -> tuple[list[tuple[bytes, bytes, bool]], int | None]:
    return read_requests(pieces, limits)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_the_same_however_its_bytes_are_split(name: str) -> None:
    data, body, kept = REQUESTS[name]
    expected = [(b"/kp1/v/x", body, kept)]
    for position in range(len(data) + 1):
        assert read(data[:position], data[position:]) == (expected, None), position
    assert read(*(data[i : i + 1] for i in range(len(data)))) == (expected, None)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(REQUESTS, repeat=2)))
def test_requests_follow_each_other_in_one_read(first: str, second: str) -> None:
    expected = [(b"/kp1/v/x", *REQUESTS[first][1:])]
    if REQUESTS[first][2]:
        expected.append((b"/kp1/v/x", *REQUESTS[second][1:]))
    assert read(REQUESTS[first][0] + REQUESTS[second][0]) == (expected, None)


def test_empty_lines_before_a_request_are_skipped() -> None:
    data = b"\r\n\r\n" + NEXT + b"\r\n" + NEXT
    for position in range(len(data) + 1):
        requests, refusal = read(data[:position], data[position:])
        assert (len(requests), refusal) == (2, None)


SMUGGLING = {
    "CVE-2022-32213 coding of another name": HEAD + b"Transfer-Encoding: chunkedchunked\r\n\r\n",
    "CVE-2022-32213 coding after a tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n",
    "CVE-2022-32214 field ended by LF": HEAD + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    "CVE-2022-32215 coding on two lines": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
    "CVE-2022-32215 coding on two lines, tab": HEAD + b"Transfer-Encoding: chunked,\r\n\tidentity\r\n\r\n",
    "CVE-2022-35256 head ended by LF": HEAD + b"X: a\r\n\n",
    "CVE-2022-35256 field without CRLF": HEAD + b"Content-Length: 0\n\r\n",
    "CVE-2023-30589 field ended by CR": HEAD + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    "CVE-2023-30589 head ended by CR CR": HEAD + b"X: a\r\r\n\r\n",
    "CVE-2024-27982 space before the name": b"POST /kp1/v/x HTTP/1.1\r\n Content-Length: 5\r\nHost: a\r\n\r\n",
    "CVE-2024-27982 space in the middle": HEAD + b" Content-Length: 5\r\n\r\n",
    "space before the colon": HEAD + b"Content-Length : 5\r\n\r\n",
    "length and coding": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two equal lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 9\r\n\r\n",
    "list of lengths": HEAD + b"Content-Length: 0, 0\r\n\r\n",
    "signed length": HEAD + b"Content-Length: +0\r\n\r\n",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "hexadecimal length": HEAD + b"Content-Length: 0x0\r\n\r\n",
    "empty length": HEAD + b"Content-Length:\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "other coding first": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "other coding": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "coding with a parameter": HEAD + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "coding in 1.0": b"POST /kp1/v/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "control character in an upgrade": HEAD + b"Connection: Upgrade\r\nUpgrade: a\x01\r\n\r\n",
    "upgrade ended by CR": HEAD + b"Upgrade: a\rContent-Length: 5\r\n\r\n",
    "blanks before CR in a field": HEAD + b"X: a \rTransfer-Encoding: chunked \r\n\r\n",
    "upgrade with a space before the colon": HEAD + b"Upgrade : h2c\r\n\r\n",
    "upgrade on two lines": HEAD + b"Upgrade: a,\r\n Content-Length: 5\r\n\r\n",
    "NUL in a value": HEAD + b"X: a\0b\r\n\r\n",
    "no colon": HEAD + b"X\r\n\r\n",
    "no name": HEAD + b": x\r\n\r\n",
    "two hosts": HEAD + b"Host: gateway\r\n\r\n",
    "no host": b"POST /kp1/v/x HTTP/1.1\r\n\r\n",
    "list of hosts": b"POST /kp1/v/x HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "host with a path": b"POST /kp1/v/x HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "two spaces": b"POST  /kp1/v/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the version": b"POST /kp1/v/x  HTTP/1.1\r\nHost: a\r\n\r\n",
    "space after the version": b"POST /kp1/v/x HTTP/1.1 \r\nHost: a\r\n\r\n",
    "space in the target": b"POST /kp1/v x HTTP/1.1\r\nHost: a\r\n\r\n",
    "control character in the target": b"POST /kp1/v\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes above ASCII in the target": b"POST /kp1/\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"POST /kp1/v/x\r\nHost: a\r\n\r\n",
    "other protocol": b"POST /kp1/v/x RTSP/1.0\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"POST /kp1/v/x HTTP/0.9\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"POST /kp1/v/x HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown method": b"FETCH /kp1/v/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower case method": b"post /kp1/v/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "chunk size ended by LF": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "chunk data ended by LF": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "chunk size of two numbers": CHUNKED + b"1 1\r\na\r\n0\r\n\r\n",
    "space after a chunk size": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "signed chunk size": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "prefixed chunk size": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "huge chunk size": CHUNKED + b"10000000000000001\r\na\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\na\r\n0\r\n\r\n",
    "LF in a chunk extension": CHUNKED + b"1;x\n\r\na\r\n0\r\n\r\n",
    "length in a trailer": CHUNKED + b"0\r\nContent-Length: 9\r\n\r\n",
    "trailer ended by LF": CHUNKED + b"0\r\nX: a\n\r\n\r\n",
    "trailers ended by CR": CHUNKED + b"0\r\n\r" + NEXT,
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_could_be_delimited_in_two_ways_ends_the_connection(name: str) -> None:
    data = SMUGGLING[name] + NEXT + NEXT
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        requests, status = read(*pieces)
        assert requests == []
        assert status in (400, 501, 505)


def test_a_tunnel_is_not_opened() -> None:
    requests, status = read(b"CONNECT kp1:80 HTTP/1.1\r\nHost: kp1:80\r\nContent-Length: 3\r\n\r\n" + NEXT)
    assert [kept for _, _, kept in requests] == [False]
    assert status is None


def test_an_unknown_expectation_is_refused() -> None:
    assert read(HEAD + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\na") == ([], 417)


def test_limit_of_the_request_target() -> None:
    def request(size: int) -> bytes:
        return b"POST /" + b"a" * (size - 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n"

    requests, status = read(request(256))
    assert (len(requests), status) == (1, None)
    assert read(request(257)) == ([], 414)
    assert read(b"POST /" + b"a" * 400) == ([], 414), "refused before the line has ended"


def test_limit_of_the_header() -> None:
    def request(size: int) -> bytes:
        fields = b"Host: a\r\nX: "
        return b"POST /a HTTP/1.1\r\n" + fields + b"a" * (size - len(fields) - 2) + b"\r\n\r\n"

    requests, status = read(request(1024 - 2))
    assert (len(requests), status) == (1, None)
    assert read(request(1200)) == ([], 431)
    assert read(request(1200)[:-4]) == ([], 431), "refused before the head has ended"
    assert read(HEAD + b"A: b\r\n" * 300) == ([], 431)


def test_limit_of_a_sized_body_holds_before_it_arrives() -> None:
    requests, status = read(HEAD + b"Content-Length: 1024\r\n\r\n" + bytes(1024))
    assert (len(requests), status) == (1, None)
    for length in (b"1025", b"999999999999999999", b"9999999999999999999"):
        assert read(HEAD + b"Content-Length: " + length + b"\r\n\r\n") == ([], 413)
    assert read(HEAD + b"Content-Length: " + b"9" * 25 + b"\r\n\r\n")[1] in (400, 413)


def test_limit_of_a_chunked_body_holds_while_it_arrives() -> None:
    chunk = b"100\r\n" + bytes(256) + b"\r\n"
    requests, status = read(CHUNKED + 4 * chunk + b"0\r\n\r\n")
    assert (len(requests), status) == (1, None)
    assert read(CHUNKED + 4 * chunk + b"1\r\na\r\n") == ([], 413)


def test_limit_of_what_surrounds_chunks() -> None:
    assert read(CHUNKED + b"1;" + b"x" * 2000) == ([], 431)
    assert read(CHUNKED + b"0\r\n" + b"X: y\r\n" * 400) == ([], 431)
    requests, status = read(CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n")
    assert (len(requests), status) == (1, None), "small chunks are not abuse"


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    read_requests([HEAD, *pieces], LIMITS)
    read_requests([CHUNKED, *pieces], LIMITS)
    read_requests(pieces, LIMITS)


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from([b"\r", b"\n", b" ", b"\t", b":", b"\0", b",", b"1", b"\r\n"])),
    min_size=1,
    max_size=3,
)  # fmt: skip


@given(st.sampled_from(sorted(REQUESTS)), MUTATIONS)
def test_what_is_taken_is_what_h11_takes(name: str, mutations: list[tuple[int, bytes]]) -> None:
    """h11 is the independent reader: a body that we take of a damaged request is never another than its body."""
    data = REQUESTS[name][0]
    for position, inserted in mutations:
        data = data[:position] + inserted + data[position:]
    requests, _ = read(data)
    if not requests:
        return
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data)
    target, body = b"", b""
    try:
        while isinstance(event := reader.next_event(), h11.Request | h11.Data):
            if isinstance(event, h11.Request):
                target = event.target
            else:
                body += event.data
    except h11.RemoteProtocolError:
        return  # stricter than we are, so there is nothing to compare
    assert isinstance(event, h11.EndOfMessage)
    assert requests[0][:2] == (target, body)
