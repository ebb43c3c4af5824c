"""The socket of the link to NATS: what it writes, in which order, and how it ends. TLS is in tests/e2e/bus."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kaa_gateway.bus.link import Link
from kaa_gateway.bus.listener import Receiver
from kaa_gateway.errors import BusError

from tests.support.esp import until

BUFFER_SIZE = 4096
"""Bytes that the kernel is asked to buffer on each side."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""


class Linked:
    """A link over a socket, whose other end the test has."""

    def __init__(self, ours: socket.socket, server: socket.socket) -> None:
        ours.setblocking(False)
        server.setblocking(False)
        self.losses: list[str] = []
        self.link = Link(asyncio.get_running_loop(), (), 2**20, 10.0, self.losses.append)
        self.ours = ours
        self.server = server
        self.connection = self.link.begin()
        self.link.use_socket(ours)

    async def read(self, size: int) -> bytes:
        """Return the next `size` bytes that the server gets, or what it gets until the link closes."""
        data = b""
        while len(data) < size:
            piece = await asyncio.get_running_loop().sock_recv(self.server, 2**16)
            if not piece:
                break
            data += piece
        return data


@contextmanager
def linked(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[Linked]:
    ours, server = socket.socketpair(type=kind)
    with ours, server:
        found = Linked(ours, server)
        yield found
        found.link.abort()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        return ours, listening.accept()[0]


async def test_what_the_socket_does_not_take_waits_and_keeps_its_order() -> None:
    with linked() as made:
        for each in (made.ours, made.server):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_SIZE)
        pieces = [bytes([number]) * (1 + 97 * number) for number in range(200)]
        for piece in pieces:
            made.link.write_handshake(piece)
        whole = b"".join(pieces)
        await asyncio.sleep(0)
        made.link.write_handshake(b"behind")
        assert await made.read(len(whole) + 6) == whole + b"behind"
        made.link.write_handshake(b"later")
        assert await made.read(5) == b"later"


async def test_lines_of_one_tick_are_one_write() -> None:
    with linked(socket.SOCK_SEQPACKET) as made:  # whose receiver sees what was written at once
        made.link.resume()
        made.link.subscribe("first", Receiver())
        made.link.subscribe("second", Receiver())
        assert await made.read(1) == b"SUB first 1\r\nPING\r\nSUB second 2\r\nPING\r\n"


async def test_a_server_that_closes() -> None:
    with linked() as made:
        made.link.resume()
        made.server.close()
        await until(lambda: bool(made.losses), "the loss")
        assert made.losses == ["closed by the server"]
        assert made.ours.fileno() == -1
        assert not made.link.ready


async def test_what_the_server_said_before_a_reset_is_read_first() -> None:
    ours, server = tcp_pair()
    with ours, server:
        made = Linked(ours, server)
        refused = made.connection.expect_info()
        server.sendall(b"-ERR 'Authorization Violation'\r\n")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        server.close()
        made.link.write_handshake(b"CONNECT {}\r\n")  # fails, before anything is read
        with pytest.raises(BusError, match="Authorization Violation"):
            await refused
        await until(lambda: ours.fileno() == -1, "the end of the socket")


async def test_a_reset_is_the_reason_of_the_loss() -> None:
    ours, server = tcp_pair()
    with ours, server:
        made = Linked(ours, server)
        made.link.resume()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        server.close()
        made.link.subscribe("subject", Receiver())
        await until(lambda: bool(made.losses), "the loss")
        assert "reset by peer" in made.losses[0]


async def test_closing_writes_what_waits_first() -> None:
    with linked() as made:
        made.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_SIZE)
        made.link.write_handshake(bytes(2**20))
        made.link.close()
        assert made.ours.fileno() != -1
        assert len(await made.read(2**21)) == 2**20
        assert made.ours.fileno() == -1


async def test_aborting_drops_what_waits() -> None:
    with linked() as made:
        made.link.resume()
        made.link.write_handshake(b"never written")
        made.link.abort("given up")
        assert made.ours.fileno() == -1
        assert made.losses == ["given up"]
        assert await made.read(1) == b""


async def test_a_socket_for_a_connection_that_was_given_up_is_closed() -> None:
    with linked() as made:
        made.link.abort()
        ours, server = socket.socketpair()
        with ours, server:
            made.link.use_socket(ours)
            assert ours.fileno() == -1


async def test_a_socket_that_is_given_to_tls_is_read_no_more() -> None:
    with linked() as made:
        made.server.send(b"INFO {")
        await asyncio.sleep(0.01)
        assert made.link.give_socket() is made.ours
        made.server.send(b"for TLS")
        await asyncio.sleep(0.01)
        assert made.ours.recv(100) == b"for TLS"
        made.link.write_handshake(b"dropped")


async def test_there_is_no_socket_for_tls_when_the_server_has_closed() -> None:
    with linked() as made:
        made.server.close()
        await until(lambda: made.ours.fileno() == -1, "the end of the socket")
        with pytest.raises(BusError, match="closed by the server"):
            made.link.give_socket()


async def test_a_violation_of_the_protocol_ends_the_connection() -> None:
    with linked() as made:
        made.link.resume()
        made.server.send(b"PONG\r\n")
        await until(lambda: bool(made.losses), "the loss")
        assert made.ours.fileno() == -1
