"""Checks that the ports of devices are free, for workers that share them with SO_REUSEPORT.

The kernel lets any process of the same user share such ports, so a second gateway would start beside the first and get
half of its devices. A socket without the option finds out.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from kaa_gateway.config.listeners import listener_ports
from kaa_gateway.net.ports import PortError, port_errors

if TYPE_CHECKING:
    from kaa_gateway.config import Config


PATIENCE = 3.0
"""Seconds that the workers of a killed supervisor have to let go of their ports."""
POLL_PERIOD = 0.1


async def probe_ports(config: Config) -> None:
    """Raise PortError if a port of an enabled listener is taken, and stays so for PATIENCE seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        try:
            _probe_all(config)
            return
        except PortError:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(POLL_PERIOD)


def _probe_all(config: Config) -> None:
    for path, below, port in listener_ports(config.transports):
        kind = socket.SOCK_DGRAM if below == "udp" else socket.SOCK_STREAM
        with port_errors(".".join(path), port):
            _probe(config.transports.bind_address, port, kind)


def _probe(host: str, port: int, kind: socket.SocketKind) -> None:
    found = socket.getaddrinfo(None if host in ("", "*") else host, port, type=kind, flags=socket.AI_PASSIVE)
    for family, _, protocol, _, address in dict.fromkeys(found):
        with socket.socket(family, kind, protocol) as probe:
            if kind == socket.SOCK_STREAM:
                # Connections of an earlier gateway that are closing do not matter; those that listen do.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
