"""Sockets that listen for TCP connections, and the options that connections inherit from them.

What does not live here: accepting connections (`kaa_gateway.net.tcp_listener`).
"""

import socket

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted."""
PROBE_AFTER_S = 300
"""Silence until the kernel sends a keep-alive probe, which finds devices that have lost their power."""
PROBE_PERIOD_S = 30
"""Time between two probes."""
PROBES = 5
"""Unanswered probes after which the kernel ends the connection."""
INHERITED = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_PERIOD_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""Options that connections inherit from their listening socket, which saves system calls for each connection."""


def listen(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """Listen on each address of `host`, or on all interfaces if it is empty or `*`.

    Raises OSError if the port is taken.
    """
    found = socket.getaddrinfo(
        None if host in ("", "*") else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # A socket for both kinds of address would exclude an IPv4 socket with the same port.
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
