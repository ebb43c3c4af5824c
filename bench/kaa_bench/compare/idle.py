"""Many idle MQTT connections, to measure the cost of a connection and of making one.

A separate process holds them. It connects in Python; only the server's cost is measured.
"""

import socket
from multiprocessing.connection import Connection

from kaa_bench import packets
from kaa_bench.compare.instruments import Instrument
from kaa_bench.connecting import Address, connect_mqtt, raise_file_limit

DISCONNECT = b"\xe0\x00"


class IdleDevices(Instrument):
    """MQTT devices that connect on request and stay connected."""

    def __init__(self, address: Address) -> None:
        super().__init__(_hold, address)

    def connect(self, count: int) -> None:
        """Connect `count` more devices, past CONNACK."""
        self._request(count=count)

    def disconnect(self) -> None:
        """Disconnect all devices. Return when the server has closed every connection."""
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
                # One by one, so that all are closed if one is refused.
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
