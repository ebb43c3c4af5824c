"""Many MQTT connections that do nothing: for what a connection costs, and what making one costs.

They are held by a process of their own. Connecting is this side's Python; the server's cost is what is measured.
"""

import socket
from multiprocessing.connection import Connection

from kaa_bench import packets
from kaa_bench.compare.instruments import Instrument
from kaa_bench.connecting import Address, connect_mqtt, raise_file_limit

DISCONNECT = b"\xe0\x00"


class IdleDevices(Instrument):
    """MQTT devices that connect when they are told to, and stay."""

    def __init__(self, address: Address) -> None:
        super().__init__(_hold, address)

    def connect(self, count: int) -> None:
        """So many more, past CONNACK."""
        self._request(count=count)

    def disconnect(self) -> None:
        """All of them, in order; returns when the server has closed every connection."""
        self._request(count=0)


def _hold(pipe: Connection, address: Address) -> None:
    sockets: list[socket.socket] = []
    pipe.send(None)
    try:
        while True:
            count = pipe.recv()["count"]
            if count:
                raise_file_limit(len(sockets) + count)
                first = len(sockets)
                # One by one, so that those that stand are closed when the next is refused.
                sockets.extend(
                    connect_mqtt(address, device, packets.BENCH) for device in range(first, first + count)
                )
            else:
                for connected in sockets:
                    connected.sendall(DISCONNECT)
                for connected in sockets:
                    while connected.recv(1024):
                        pass
                    connected.close()
                sockets.clear()
            pipe.send(None)
    finally:
        for connected in sockets:
            connected.close()
