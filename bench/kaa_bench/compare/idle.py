"""Many idle MQTT connections, to measure the cost of a connection and of making one.

A separate process holds them. It connects in Python; only the server's cost is measured.
"""

import socket
import ssl
from multiprocessing.connection import Connection

from kaa_bench import packets
from kaa_bench.certificate import client_context
from kaa_bench.compare.instruments import Instrument
from kaa_bench.connecting import Address, connect_mqtt, raise_file_limit

DISCONNECT = b"\xe0\x00"


class IdleDevices(Instrument):
    """MQTT devices that connect on request and stay connected: over TLS if they are `encrypted`."""

    def __init__(
        self, address: Address, *, encrypted: bool = False, profile: packets.Profile = packets.BENCH
    ) -> None:
        super().__init__(_hold, address, encrypted, profile)

    def connect(self, count: int, *, resuming: bool = False) -> int:
        """Connect `count` more devices, past CONNACK. Return how many have resumed the session of an earlier one."""
        return int(self._request(count=count, resuming=resuming))

    def disconnect(self) -> None:
        """Disconnect all devices. Return when the server has closed every connection."""
        self._request(count=0, resuming=False)


def _hold(pipe: Connection, address: Address, encrypted: bool, profile: packets.Profile) -> None:
    sockets: list[socket.socket] = []
    context = client_context() if encrypted else None
    session: ssl.SSLSession | None = None
    pipe.send(None)
    try:
        while True:
            request = pipe.recv()
            count, resumed = request["count"], 0
            if count:
                raise_file_limit(len(sockets) + count)
                first = len(sockets)
                for device in range(first, first + count):
                    connected = connect_mqtt(address, device, profile, context, session)
                    sockets.append(connected)
                    if isinstance(connected, ssl.SSLSocket):
                        resumed += bool(connected.session_reused)
                        session = connected.session if request["resuming"] else None
            else:
                for connected in sockets:
                    connected.sendall(DISCONNECT)
                for connected in sockets:
                    while connected.recv(1024):
                        pass
                    connected.close()
                sockets.clear()
            pipe.send(resumed)
    finally:
        for connected in sockets:
            connected.close()
