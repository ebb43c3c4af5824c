"""The NATS sink, fed by hand over a socket pair. tests/e2e/bench/test_nats.py has it on a real nats-server."""

import socket

import pytest
from kaa_bench.errors import BenchError
from kaa_bench.load.nats import NatsSink
from kaa_gateway.wire import esp

CLIENT_DATA = esp.encode_client_data("id-1", 1, 0, "bench_v1", "bench-000001", "/json", None, b"{}")
REQUEST = esp.encode_client_data("id-2", 1, 0, "bench_v1", None, "/json", 7, b"")


def msg(payload: bytes, reply_to: bytes = b"") -> bytes:
    head = b" ".join(filter(None, [b"MSG kaa.v1.service.dcx.esp.ClientData 1", reply_to]))
    return b"%b %d\r\n%b\r\n" % (head, len(payload), payload)


class Wire:
    """A sink on one end of a socket pair; `feed` drains what was sent."""

    def __init__(self, extension: bytes | None = None) -> None:
        self.socket, theirs = socket.socketpair()
        self.control, self._controlled = socket.socketpair()
        self.control.sendall(b"x")
        self.sink = NatsSink(theirs, extension)

    def feed(self, data: bytes) -> None:
        """Each drain handles what can be read in one read, then sees that it should return."""
        self.socket.sendall(data)
        self.sink.drain(self._controlled.fileno())


@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
def test_messages_are_counted_however_the_stream_is_split(piece: int) -> None:
    wire = Wire()
    stream = msg(b"") + msg(b"a\r\nb", b"reply") + b"+OK\r\n" + msg(b"x" * 300)
    for start in range(0, len(stream), piece):
        wire.feed(stream[start : start + piece])
    assert wire.sink.received == 3


def test_a_ping_is_answered_so_that_the_server_keeps_the_connection() -> None:
    wire = Wire()
    wire.feed(b"PING\r\n")
    assert wire.socket.recv(100) == b"PONG\r\n"


def test_answers_go_to_the_reply_subjects_as_extension_data_200() -> None:
    wire = Wire(b"dcx")
    wire.feed(msg(CLIENT_DATA, b"_R.1") + msg(CLIENT_DATA) + msg(REQUEST, b"_R.2"))
    line, _, rest = wire.socket.recv(65536).partition(b"\r\n")
    operation, subject, size = line.split()
    first = esp.decode_extension_data(rest[: int(size)])
    assert (operation, subject) == (b"PUB", b"_R.1")
    assert (first.correlation_id, first.timeout, first.app_version_name) == ("id-1", 0, "bench_v1")
    assert (first.extension_instance_name, first.endpoint_id) == ("dcx", "bench-000001")
    assert (first.resource_path, first.request_id, first.payload) == ("/json", None, None)
    assert (first.status_code, first.reason_phrase) == (200, None)
    line, _, rest = rest[int(size) + 2 :].partition(b"\r\n")
    operation, subject, size = line.split()
    second = esp.decode_extension_data(rest[: int(size)])
    assert (operation, subject, rest[int(size) :]) == (b"PUB", b"_R.2", b"\r\n")
    assert (second.correlation_id, second.endpoint_id, second.request_id) == ("id-2", None, 7)


@pytest.mark.parametrize(
    "stream",
    [
        b"-ERR 'Slow Consumer'\r\n",
        b"MSG subject 1\r\n",
        b"MSG subject 1 reply to 5\r\n",
        b"MSG subject 1 x\r\n",
        b"MSG subject 1 123456789\r\n",
        b"PING\n",
        msg(b"not avro", b"reply"),
    ],
)
def test_what_the_sink_cannot_read_is_an_error(stream: bytes) -> None:
    with pytest.raises(BenchError, match="sink: "):
        Wire(b"dcx").feed(stream)


def test_a_server_that_closes_is_an_error() -> None:
    wire = Wire()
    wire.socket.close()
    with pytest.raises(BenchError, match="closed"):
        wire.sink.drain(wire._controlled.fileno())
