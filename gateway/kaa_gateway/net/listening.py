"""Sockets that listen for TCP connections, and what those inherit from them.

What lives here: making them, once for a listener. What does not: accepting (`kaa_gateway.net.tcp`).
"""

import socket

BACKLOG = 4096
"""Connections that the kernel holds until they are accepted."""
PROBE_AFTER_S = 300
"""Silence until the kernel asks whether the peer is there: a device that has lost its power is noticed."""
PROBE_PERIOD_S = 30
PROBES = 5
"""Questions without an answer until the connection is gone."""
INHERITED = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_PERIOD_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""Options that connections have from their listening socket, so that none of them costs a system call."""


def listen(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """A socket for each address of `host`, which is all interfaces if empty; OSError if a port is taken."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Both kinds of address on one socket would exclude an IPv4 socket beside it.
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for level, option, value in INHERITED:
                listening.setsockopt(level, option, value)
            listening.bind(address)
            listening.listen(BACKLOG)
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets
