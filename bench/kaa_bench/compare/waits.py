"""Devices that wait for a push over HTTP: each asks, and a push answers it, round by round."""

import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kaa_bench import packets
from kaa_bench.compare.instruments import Sink
from kaa_bench.compare.pushing import PUSHED, PushSpec, message
from kaa_bench.connecting import Address, connect_nats
from kaa_bench.errors import BenchError
from kaa_bench.processes import INSTANCE

DEVICES = 100
TIMEOUT_S = 120.0
POLL_S = 0.01
RECEIVE_SIZE = 65536


class WaitingDevices:
    """Devices with a connection each, and the source of the pushes to them."""

    def __init__(self, gateway: Address, nats: Address) -> None:
        self._sink = Sink(nats, answers=False)
        self._source = connect_nats(nats)
        self._devices = [socket.create_connection(gateway, TIMEOUT_S) for _ in range(DEVICES)]
        self._requests = [
            f"POST /{PUSHED.resource_path(device)}?wait=200 HTTP/1.1\r\n"
            "Host: gateway\r\nContent-Length: 0\r\n\r\n".encode()
            for device in range(DEVICES)
        ]
        spec = PushSpec(gateway, nats, "esp", INSTANCE)
        self._pushes = b"".join(message(spec, device) for device in range(DEVICES))
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (*self._devices, self._source):
            each.close()
        self._sink.__exit__(kind, error, trace)

    def run(self, messages: int) -> int:
        """Let devices wait until so many pushes have answered them. Return how many did."""
        done = 0
        while done < messages:
            for device, request in zip(self._devices, self._requests, strict=True):
                device.sendall(request)
            self._asked += DEVICES
            _await(lambda: self._sink.received() >= self._asked)
            self._source.sendall(self._pushes)
            for device in self._devices:
                received = b""
                while not received.endswith(packets.PAYLOAD):
                    data = device.recv(RECEIVE_SIZE)
                    if not data:
                        raise BenchError("the gateway closed the connection of a device that waits")
                    received += data
            done += DEVICES
        return done


def _await(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        if time.monotonic() > deadline:
            raise BenchError("stalled: the extension has not got all requests")
        time.sleep(POLL_S)
