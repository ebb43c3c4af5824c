"""Devices over TLS and DTLS: any bytes as records, before, within and after a handshake, and encrypted ones.

The devices' own OpenSSL makes the handshakes, a flight at a time; what a step sends is encrypted when there is a
session, unless the device was told to send raw bytes.
"""

import contextlib
import functools
import ssl
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kaa_gateway.app.encryption import datagram_credentials, stream_credentials
from kaa_gateway.coap.clients import dtls_clients
from kaa_gateway.config.keys import CoapDtls, MqttTls
from kaa_gateway.net.dtls import DtlsSocket
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.tls import TlsListener
from OpenSSL import SSL

from tests.fuzz.simulation import EVENTS, DatagramDevice, Simulation, StreamDevice
from tests.support.certificates import Authority
from tests.support.dtls import IDENTITY, KEY, DtlsClient
from tests.support.nats import HOST

HANDSHAKES_MAX = 3
HANDSHAKE_TIMEOUT_S = 10.0
SESSIONS_MAX = 3
SESSION_TIMEOUT_S = 100.0


class TlsDevice(StreamDevice):
    """A device of a listener with TLS."""

    def __init__(self, listener: TcpListener, context: ssl.SSLContext) -> None:
        super().__init__(listener)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._is_secure = False
        self.is_raw = False

    def send(self, data: bytes) -> None:
        if self._is_secure and not self.is_raw:
            with contextlib.suppress(ssl.SSLError):
                self._tls.write(data)
            data = self._outgoing.read()
        super().send(data)

    def shake_hands(self) -> None:
        """Send the next flight of the handshake."""
        self._incoming.write(self.received)
        self.received = b""
        with contextlib.suppress(ssl.SSLError):
            self._tls.do_handshake()
            self._is_secure = True
        super().send(self._outgoing.read())


class DtlsDevice(DatagramDevice):
    """A device of a socket with DTLS."""

    def __init__(self, server: DtlsSocket) -> None:
        super().__init__(server)
        self._dtls = DtlsClient(server.port)
        self._socket.close()
        self._socket = self._dtls.socket
        self._is_secure = False
        self.is_raw = False

    def send(self, data: bytes) -> None:
        if self._is_secure and not self.is_raw:
            with contextlib.suppress(SSL.Error):
                self._dtls.send(data)
            self._server.on_readable()
        else:
            super().send(data)

    def shake_hands(self) -> None:
        """Send the next flight of the handshake."""
        with contextlib.suppress(SSL.Error):
            self._is_secure = self._dtls.step()
        self._server.on_readable()

    def take(self, data: bytes) -> None:
        super().take(data)
        self._dtls.take(data)


class EncryptedSimulation(Simulation):
    """Devices of one transport that encrypts: "tls" is MQTT, "dtls" is CoAP."""

    def __init__(self, protocol: str) -> None:
        super().__init__("mqtt" if protocol == "tls" else "coap")
        self._events = ENCRYPTED_EVENTS
        with tempfile.TemporaryDirectory() as directory:
            if protocol == "tls":
                self._encrypt_stream(Path(directory))
            else:
                self._encrypt_datagrams(Path(directory))

    def _encrypt_stream(self, directory: Path) -> None:
        issued = Authority(directory).issue("gateway")
        settings = MqttTls(enabled=True, cert_file=issued.cert_file, key_file=issued.key_file)
        make_listener = functools.partial(
            TlsListener,
            credentials=stream_credentials(("mqtt", "tls"), settings),
            handshake_timeout=HANDSHAKE_TIMEOUT_S,
            handshakes_max=HANDSHAKES_MAX,
        )
        self.listen(self.mqtt, "mqtt", make_listener)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._make = lambda: TlsDevice(self.tcp, context)

    def _encrypt_datagrams(self, directory: Path) -> None:
        assert self._datagrams is not None
        self._datagrams.stop()
        (directory / "psk.yml").write_text(f"keys: {{{IDENTITY}: {KEY.hex()}}}\n")
        settings = CoapDtls(enabled=True, psk_file=directory / "psk.yml")
        loop: Any = self.loop
        server = self._datagrams = DtlsSocket(
            loop,
            self._core,
            self.counters,
            datagram_credentials(("coap", "dtls"), settings),
            dtls_clients(self, "coap"),
            protocol="coap",
            handshake_timeout=HANDSHAKE_TIMEOUT_S,
            session_timeout=SESSION_TIMEOUT_S,
            handshakes_max=HANDSHAKES_MAX,
            sessions_max=SESSIONS_MAX,
        )
        server.limit(self.admission)
        server.start(HOST, 0, reuse_port=False)
        self._make = lambda: DtlsDevice(server)

    def _shake_hands(self) -> None:
        if self._players:
            self._players[self._current].shake_hands()  # type: ignore[union-attr]

    def _send_raw(self) -> None:
        if self._players:
            device: Any = self._players[self._current]
            device.is_raw = not device.is_raw

    def _end(self) -> None:
        super()._end()
        if isinstance(self._datagrams, DtlsSocket):
            assert not any(self._datagrams.table_sizes().values())
        elif isinstance(self.listener, TlsListener):
            assert self.listener.handshake_count() == 0


ENCRYPTED_EVENTS: Sequence[Callable[[Any], object]] = [
    *EVENTS,
    EncryptedSimulation._shake_hands,
    EncryptedSimulation._send_raw,
]
