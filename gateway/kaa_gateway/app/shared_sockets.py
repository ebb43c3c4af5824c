"""The UDP sockets of several workers, which their supervisor holds.

The kernel chooses among the sockets of a port by a hash of the addresses and the number of sockets. Each worker has its
own socket, and gets the same one when it is started again. The supervisor keeps it open in the meantime, so that the
number stays the same and the peers of other workers stay. Datagrams for a dead worker wait in its socket.

For encrypted KP/UDP the kernel reads the worker in the connection ID first, so that a device keeps its worker when its
address changes.

Source: socket(7), SO_REUSEPORT.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from kaa_gateway.config.listeners import listener_ports
from kaa_gateway.net import steering
from kaa_gateway.net.ports import port_errors
from kaa_gateway.net.udp import bind

if TYPE_CHECKING:
    import socket

    from kaa_gateway.config import Config

BoundSockets = dict[int, "socket.socket"]
"""The UDP sockets of a worker by their ports."""


def bind_datagram_sockets(config: Config) -> list[BoundSockets]:
    """Return the sockets of each worker. Raises PortError if a port is taken."""
    with contextlib.ExitStack() as undo:
        workers: list[BoundSockets] = []
        for _ in range(config.workers):
            workers.append(sockets := {})
            for path, below, port in listener_ports(config.transports):
                if below == "udp":
                    with port_errors(".".join(path), port):
                        sockets[port] = bind(config.transports.bind_address, port, True)
                    undo.callback(sockets[port].close)
        if config.workers > 1 and config.transports.udp.secure.enabled:
            steering.attach(workers[0][config.transports.udp.secure.port])
        undo.pop_all()
        return workers


def close_datagram_sockets(workers: list[BoundSockets]) -> None:
    """Close the sockets of all workers."""
    for sockets in workers:
        for each in sockets.values():
            each.close()
