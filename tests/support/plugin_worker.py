"""A worker double that serves a protocol of a plug-in, over TCP and over UDP."""

import contextlib
import socket
from typing import Any

from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.net.input_memory import InputMemory
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.plugins.datagrams import DatagramPeers
from kaa_gateway.plugins.protocol import DeviceProtocol
from kaa_gateway.plugins.server import PluginServer
from kaa_gateway.wire import esp

from tests.support.line_protocol import Lines
from tests.support.nats import HOST
from tests.unit.kp.device_double import DEVICE_HOST, Peer
from tests.unit.kp.worker_double import APP, WorkerDouble

NAME = "lines"


class PluginWorker(WorkerDouble):
    """A worker whose only protocol is that of a plug-in. `settings` are keywords of PluginServer.configure."""

    def __init__(
        self,
        protocol_class: type[DeviceProtocol] = Lines,
        *,
        options: dict[str, Any] | None = None,
        capacity: int = 100,
        input_memory: int = 1 << 20,
        peers: int = 16,
        settings: dict[str, Any] | None = None,
        **bounds: Any,
    ) -> None:
        super().__init__(**bounds)
        loop: Any = self.loop
        self.pending = PendingRequests(capacity, 30.0)
        self.server = PluginServer(
            loop, NAME, protocol_class, self.uplink, self.sessions, self.pending, self.counters
        )
        self.options = {**protocol_class.options_with_defaults, **(options or {})}
        self.settings: dict[str, Any] = {
            "app_version": APP, "max_message_size": 1024, "login_timeout": 30.0, "idle_timeout": 600.0,
            **(settings or {}),
        }  # fmt: skip
        self.server.configure(self.options, **self.settings)
        self.input_memory = InputMemory(input_memory)
        self.server.limit(self.input_memory)
        self.core = DatagramPeers(self.server, peers)
        self.socket: UdpSocket | None = None
        self.listen(self.server, NAME)

    def connect(self) -> "LineDevice":
        assert self.listener is not None
        return LineDevice(self, Peer(self.listener, DEVICE_HOST))

    def open_socket(self) -> UdpSocket:
        loop: Any = self.loop
        self.socket = UdpSocket(loop, self.core, self.counters)
        self.socket.start(HOST, 0, reuse_port=False)
        return self.socket

    def close(self) -> None:
        super().close()
        if getattr(self, "socket", None) is not None:
            assert self.socket is not None
            self.core.stop()
            self.socket.stop()
            self.socket = None

    def push(self, endpoint_id: str, payload: bytes, path: str = "/command/x", correlation: str = "") -> None:
        """An extension sends a push."""
        datum = esp.encode_extension_data(
            correlation, 0, 0, None, "cex", endpoint_id, path, None, payload, 200, None
        )
        self.deliver(datum)


class LineDevice:
    """A device of TCP."""

    def __init__(self, worker: PluginWorker, peer: Peer) -> None:
        self._worker = worker
        self.peer = peer

    def send(self, *lines: str) -> None:
        self.send_bytes("".join(f"{line}\n" for line in lines).encode())

    def send_bytes(self, data: bytes) -> None:
        self.peer.send(data)
        self._worker.loop.run()

    def lines(self) -> list[str]:
        found = b""
        self._worker.loop.run()
        while data := self.peer.look():
            found += data
            self._worker.loop.run()
        return found.decode().splitlines()

    def log_in(self, token: str = "t1") -> None:
        self.send(f"login {token}")
        self._worker.identify()
        self._worker.loop.run()
        assert self.lines() == [f"identified {token}"]

    @property
    def closed(self) -> bool:
        self.lines()
        return self.peer.closed


class DatagramDevice:
    """A device of UDP."""

    def __init__(self, worker: PluginWorker) -> None:
        assert worker.socket is not None
        self._worker = worker
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect((HOST, worker.socket.port))

    def send(self, line: str) -> None:
        self._socket.send(line.encode())
        self._worker.loop.run()

    def lines(self) -> list[str]:
        self._worker.loop.run()
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(65_536).decode().rstrip("\n"))
        return found

    def close(self) -> None:
        self._socket.close()
