"""Connecting the load generator and the sink, and their processes."""

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kaa_bench import connecting, packets
from kaa_bench.compare.instruments import LoadGenerator
from kaa_bench.connecting import LoadSpec, connect_load, connect_sink, raise_file_limit
from kaa_bench.errors import BenchError
from kaa_gateway.wire.kpudp import Message, Type, decode, encode

from tests.unit.bench.load.datagram_peer import datagram_server
from tests.unit.bench.load.peer import STALL_TIMEOUT_S

SPEC = LoadSpec("mqtt", connections=1, qos=1, window=1)


@contextmanager
def listener(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server that greets one connection with the bytes and closes it."""

    def serve() -> None:
        connected, _ = server.accept()
        with connected:
            connected.sendall(answer)
            connected.shutdown(socket.SHUT_WR)
            while connected.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\x20\x02\x00\x05", r"refused: CONNACK 5 \(not authorized\)"),
        (b"\x20\x02\x00\x09", r"refused: CONNACK 9 \(unknown code\)"),
        (b"\x20\x02", "answered with 20 02"),
        (b"", "answered with a closed connection"),
    ],
)
def test_a_refused_connect_says_what_came_instead_of_connack(answer: bytes, said: str) -> None:
    with listener(answer) as address, pytest.raises(BenchError, match=f"device 0 was {said}"):
        connect_load(SPEC, address)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0\r\n", "is not NATS"),
        (b"", "closed the connection"),
        (b"INFO {}\r\n-ERR 'Authorization Violation'\r\n", "Authorization Violation"),
    ],
)
def test_what_is_not_a_willing_nats_server_is_named(answer: bytes, said: str) -> None:
    with listener(answer) as address, pytest.raises(BenchError, match=said):
        connect_sink(address, answers=False)


def test_an_error_in_the_process_of_an_instrument_is_raised_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(BenchError, match="cannot connect"):
        LoadGenerator(SPEC, address)


def test_more_sockets_than_the_hard_limit_are_refused_in_words() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        raise_file_limit(1 << 20)
    else:
        with pytest.raises(BenchError, match="ulimit -n"):
            raise_file_limit(hard)


def test_a_kpudp_device_registers_its_alias_and_proves_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "ANSWER_TIMEOUT_S", 0.2)
    seen: list[Message] = []

    def lose_the_first(datagram: bytes) -> list[bytes]:
        _, (message,) = decode(datagram)
        seen.append(message)
        if len(seen) == 1:
            return []
        ping = encode(packets.EPOCH, [Message(Type.PING, 5, payload=b"8 bytes.")])
        if message.type == Type.CONFIRMED_DATA:
            return [ping, encode(packets.EPOCH, [Message(Type.ACK, message.message_id)])]
        return []

    with datagram_server(lose_the_first) as server:
        load = connect_load(LoadSpec("kpudp", connections=1, window=4), server.getsockname())
        result = load.run(messages=10, stall_timeout=STALL_TIMEOUT_S)
        load.close()
    assert (result.acknowledged, result.errors) == (10, {})
    assert seen[0].path == packets.BENCH.resource_path(0)
    assert seen[0].alias == packets.ALIAS
    assert seen[1] == seen[0]
    assert Message(Type.PONG, 5, payload=b"8 bytes.") in seen


def test_a_refused_registration_says_what_came() -> None:
    refusal = encode(packets.EPOCH, [Message(Type.RESET, packets.REGISTRATION_ID, status=404)])
    with (
        datagram_server(lambda _: [refusal]) as server,
        pytest.raises(BenchError, match=r"device 0 was answered with .*404"),
    ):
        connect_load(LoadSpec("kpudp", connections=1), server.getsockname())


def test_a_registration_that_is_never_answered_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "ANSWER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 0.2)
    with datagram_server(lambda _: []) as server, pytest.raises(BenchError, match="no ACK for device 0"):
        connect_load(LoadSpec("kpudp", connections=1), server.getsockname())


def test_each_load_of_datagrams_has_a_source_of_its_own() -> None:
    sources = {connecting.unused_source(("127.0.0.1", 0)) for _ in range(20)}
    assert len(sources) > 1
    assert all(source.startswith("127.") for source in sources)
