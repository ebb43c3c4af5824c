"""A DTLS client on OpenSSL that goes step by step and shows each datagram, which libcoap's does not."""

import asyncio
import socket
from pathlib import Path
from typing import Any, Self

from OpenSSL import SSL

from tests.support.certificates import Issued
from tests.support.nats import HOST

ANSWER_TIMEOUT_S = 20.0
QUIET_S = 0.15
IDENTITY = "device-1"
KEY = bytes(range(16))


class DtlsClient:
    """One client, from one address. With `issued` it shows a certificate, else it has a pre-shared key.

    `ciphers` are those of a pre-shared key.
    """

    def __init__(
        self,
        port: int,
        *,
        issued: Issued | None = None,
        ca_file: Path | None = None,
        other: Self | None = None,
        ciphers: bytes = b"PSK-AES128-CCM8",
    ) -> None:
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self._context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        if issued is not None:
            self._context.set_cipher_list(b"ECDHE:@SECLEVEL=0")
            self._context.use_certificate_file(str(issued.cert_file))
            self._context.use_privatekey_file(str(issued.key_file))
            self._context.load_verify_locations(str(ca_file))
            self._context.set_verify(SSL.VERIFY_PEER)
        else:
            self._context.set_cipher_list(ciphers + b":@SECLEVEL=0")
            self._callback = _use_key(self._context)
        self._connection = SSL.Connection(self._context, None)
        self._connection.set_connect_state()
        self._connection.set_ciphertext_mtu(1200)
        self.socket: socket.socket
        if other is not None:
            self.socket = other.socket
            return
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((HOST, 0))
        self.socket.connect((HOST, port))

    async def datagram(self) -> bytes:
        """Return the next datagram of the server; it is not handed to OpenSSL."""
        loop = asyncio.get_running_loop()
        data = await asyncio.wait_for(loop.sock_recv(self.socket, 65536), ANSWER_TIMEOUT_S)
        self.received.append(data)
        return data

    async def silence(self) -> bool:
        """Return whether nothing comes for a while."""
        try:
            async with asyncio.timeout(QUIET_S):
                self.received.append(await asyncio.get_running_loop().sock_recv(self.socket, 65536))
        except TimeoutError:
            return True
        return False

    def send_raw(self, data: bytes) -> None:
        self.socket.send(data)

    def flush(self) -> None:
        """Send what OpenSSL has written."""
        try:
            data = self._connection.bio_read(65536)
        except SSL.WantReadError:
            return
        self.sent.append(data)
        self.socket.send(data)

    def take(self, data: bytes) -> None:
        """Hand a datagram of the server to OpenSSL."""
        self._connection.bio_write(data)

    def step(self) -> bool:
        """Continue the handshake. Return whether it is complete."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        finally:
            self.flush()
        return True

    async def begin(self) -> None:
        """Shake hands up to the second ClientHello, which has the cookie."""
        self.step()
        self._connection.bio_write(await self.datagram())
        self.step()

    def resume(self, other: "DtlsClient") -> None:
        """Offer to resume the session of another client."""
        session = other._connection.get_session()
        assert session is not None
        session._context = self._context  # pyOpenSSL allows only that with which it was made
        self._connection.set_session(session)

    @property
    def resumed(self) -> bool:
        """Whether its session is an earlier one."""
        return bool(SSL._lib.SSL_session_reused(self._connection._ssl))  # type: ignore[attr-defined]

    async def handshake(self) -> None:
        """Complete the handshake; SSL.Error if the server refuses."""
        while not self.step():
            self._connection.bio_write(await self.datagram())

    def send(self, message: bytes) -> None:
        """Encrypt and send."""
        self._connection.send(message)
        self.flush()

    async def receive(self) -> bytes:
        """Return the next message; b"" when the server has said goodbye."""
        while True:
            try:
                return self._connection.recv(65536)
            except SSL.WantReadError:
                self.flush()
                self._connection.bio_write(await self.datagram())
            except SSL.ZeroReturnError:
                return b""

    def close(self) -> None:
        self.socket.close()


def _use_key(context: SSL.Context) -> object:
    lib, ffi = SSL._lib, SSL._ffi  # type: ignore[attr-defined]

    @ffi.callback(  # type: ignore[untyped-decorator]
        "unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)"
    )
    def callback(_: Any, __: Any, identity: Any, identity_room: int, key: Any, key_room: int) -> int:
        text = IDENTITY.encode() + b"\0"
        ffi.memmove(identity, text, len(text))
        ffi.memmove(key, KEY, len(KEY))
        return len(KEY)

    lib.SSL_CTX_set_psk_client_callback(context._context, callback)
    return callback
