"""Clients of a worker double whose bytes go through TLS, WebSocket, both or neither."""

import contextlib
import ssl
from functools import partial
from pathlib import Path
from typing import Any

from kaa_gateway.app.encryption import stream_credentials
from kaa_gateway.config.keys import MqttTls
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.tls import TlsListener
from kaa_gateway.net.transport import ProtocolServer
from kaa_gateway.net.websocket import WebSocketServer

from tests.support.certificates import Authority
from tests.support.websocket import BINARY, frame, request
from tests.unit.kp.device_double import DEVICE_HOST, Peer
from tests.unit.kp.worker_double import WorkerDouble

LAYERS = ("tcp", "tls", "ws", "wss")


def listen(worker: WorkerDouble, layer: str, server: ProtocolServer, protocol: str, directory: Path) -> None:
    """Serve clients of one of LAYERS."""
    loop: Any = worker.loop
    if layer in ("ws", "wss"):
        server = WebSocketServer(
            loop, server, worker.counters, frame_size_max=1 << 20, handshake_timeout=10.0
        )
    make_listener: Any = TcpListener
    if layer in ("tls", "wss"):
        issued = Authority(directory).issue("gateway")
        settings = MqttTls(enabled=True, cert_file=issued.cert_file, key_file=issued.key_file)
        make_listener = partial(
            TlsListener,
            credentials=stream_credentials(("mqtt", "tls"), settings),
            handshake_timeout=10.0,
            handshakes_max=10,
        )
    worker.listen(server, protocol, make_listener)


class Client:
    """One connection. `closed` says that the gateway has ended it; `notified` that TLS has said so too."""

    def __init__(self, worker: WorkerDouble, layer: str) -> None:
        assert worker.listener is not None
        self._worker = worker
        self._peer = Peer(worker.listener, DEVICE_HOST)
        self._websocket = layer in ("ws", "wss")
        self._tls: ssl.SSLObject | None = None
        self.notified = False
        self._unsent = b""
        if layer in ("tls", "wss"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._incoming, self._outgoing)
            self._shake_hands()
        if self._websocket:
            self._send(request())
            assert self.look().startswith(b"HTTP/1.1 101 ")

    def _shake_hands(self) -> None:
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._exchange()
            else:
                self._exchange()
                return

    def _exchange(self) -> None:
        if data := self._outgoing.read():
            self._peer.send(data)
        self._worker.loop.run()
        if data := self._peer.look():
            self._incoming.write(data)

    def _send(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        """Send what the gateway's socket has not taken yet."""
        self._unsent = self._unsent[self._peer.send_some(self._unsent) :]
        self._worker.loop.read()

    def send(self, data: bytes) -> None:
        """Send some bytes of the protocol."""
        self._send(frame(BINARY, data) if self._websocket else data)

    def end_tls(self) -> None:
        """Send close_notify, and no FIN."""
        assert self._tls is not None
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._peer.send(self._outgoing.read())
        self._worker.loop.read()

    def half_close(self) -> None:
        """Send FIN, and read on."""
        self._peer.half_close()
        self._worker.loop.read()

    def look(self) -> bytes:
        """What has come since the last look, WebSocket's frames included."""
        self._worker.loop.run()
        data = self._peer.look()
        if self._tls is None:
            return data
        self._incoming.write(data)
        found = b""
        while True:
            try:
                some = self._tls.read(65_536)
            except ssl.SSLWantReadError:
                return found
            except ssl.SSLError:
                self.notified = True
                return found
            if not some:
                self.notified = True
                return found
            found += some

    @property
    def closed(self) -> bool:
        return self._peer.closed

    def go(self) -> None:
        self._peer.go()
        self._worker.loop.run()
