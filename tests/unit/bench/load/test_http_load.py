"""The HTTP load generator against peers that behave and peers that do not."""

import socket
from itertools import cycle

import httptools
import pytest
from kaa_bench import packets
from kaa_bench.errors import BenchError
from kaa_bench.load.http import HttpLoad
from kaa_bench.load.loop import RunResult

from tests.unit.bench.load.peer import STALL_TIMEOUT_S, Serve, peers, read_exactly

REQUEST = packets.post(1, "127.0.0.1:8080")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nServer: x\r\ncontent-length:    0\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nX-Content-Length: 7\r\nCONTENT-LENGTH:100000\r\nA: b\r\n\r\n" + bytes(100_000)


def answer_with(*responses: bytes, piece: int = 1 << 20) -> Serve[int]:
    """Answers the requests with each response in turn, in pieces of so many bytes; returns how many."""

    def serve(connected: socket.socket) -> int:
        for count, response in enumerate(cycle(responses)):
            request = read_exactly(connected, len(REQUEST))
            if request is None:
                return count
            assert request == REQUEST
            for start in range(0, len(response), piece):
                connected.sendall(response[start : start + piece])
        return 0

    return serve


def run(*responses: bytes, messages: int, connections: int = 1, piece: int = 1 << 20) -> RunResult:
    with peers(answer_with(*responses, piece=piece), connections) as (sockets, served):
        load = HttpLoad(sockets, [REQUEST] * connections)
        result = load.run(messages=messages, stall_timeout=STALL_TIMEOUT_S)
        load.close()
        assert sum(future.result() for future in served) == result.sent
    return result


def test_each_request_waits_for_its_response() -> None:
    result = run(OK, messages=500, connections=4)
    assert (result.sent, result.acknowledged, result.errors) == (500, 500, {})


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64])
def test_responses_may_be_split_anywhere(piece: int) -> None:
    result = run(OK, NO_CONTENT, UNAVAILABLE, messages=9, piece=piece)
    assert (result.acknowledged, result.errors) == (9, {"status 503": 3})


def test_bodies_longer_than_a_read_are_skipped() -> None:
    assert run(LONG, OK, messages=10).acknowledged == 10


def test_statuses_that_are_not_2xx_are_counted_by_code_and_per_run() -> None:
    with peers(answer_with(OK, UNAVAILABLE, OK.replace(b"200", b"404"))) as (sockets, _):
        load = HttpLoad(sockets, [REQUEST])
        for _ in range(2):
            result = load.run(messages=6, stall_timeout=STALL_TIMEOUT_S)
            assert (result.acknowledged, result.errors) == (6, {"status 404": 2, "status 503": 2})


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1234567890\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n", "malformed response"),
        (b"SMTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "malformed response"),
        (b"\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000, "malformed response"),
        (OK + b"more", "unexpected packet"),
    ],
)
def test_what_is_not_a_response_ends_the_connection(response: bytes, error: str) -> None:
    def serve(connected: socket.socket) -> None:
        assert read_exactly(connected, len(REQUEST)) == REQUEST
        connected.sendall(response)
        while connected.recv(65536):
            pass

    with peers(serve) as (sockets, _):
        result = HttpLoad(sockets, [REQUEST]).run(messages=10, stall_timeout=STALL_TIMEOUT_S)
    assert result.errors == {error: 1}


def test_a_peer_that_closes_is_counted() -> None:
    with peers(lambda connected: read_exactly(connected, 10)) as (sockets, _):
        result = HttpLoad(sockets, [REQUEST]).run(messages=10, stall_timeout=STALL_TIMEOUT_S)
    assert sum(result.errors.values()) == 1
    assert set(result.errors) <= {"closed by peer", "socket error"}


def test_a_response_that_never_ends_is_a_stall() -> None:
    def serve(connected: socket.socket) -> None:
        read_exactly(connected, len(REQUEST))
        connected.sendall(OK[:-1])
        connected.recv(1)

    with peers(serve) as (sockets, _), pytest.raises(BenchError, match="1 messages sent, 0 acknowledged"):
        HttpLoad(sockets, [REQUEST]).run(messages=10, stall_timeout=0.2)


def test_more_than_one_outstanding_request_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ValueError, match="window is 1"):
        HttpLoad([ours], [REQUEST], 2)


def test_the_request_is_one_that_an_independent_parser_reads() -> None:
    class Seen:
        url = body = b""
        headers: dict[bytes, bytes] = {}  # noqa: RUF012 - one instance

        def on_url(self, url: bytes) -> None:
            self.url += url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers[name] = value

        def on_body(self, body: bytes) -> None:
            self.body += body

    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(REQUEST)
    assert parser.get_method() == b"POST"
    assert parser.should_keep_alive()
    assert seen.url == b"/kp1/bench_v1/dcx/bench-000001/json"
    assert seen.headers[b"Host"] == b"127.0.0.1:8080"
    assert seen.body == packets.PAYLOAD
