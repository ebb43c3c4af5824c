"""A TLS client on OpenSSL itself: it asks for new keys (TLS 1.3) and a new handshake (TLS 1.2), which `ssl` cannot."""

import asyncio
import ctypes
import ctypes.util
import hashlib
import hmac
from typing import Any, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_UPDATE_REQUESTED = 1
SEALED_CIPHERS = b"ECDHE+AESGCM+AES128"
"""Those of `seal`."""
SSL_CTRL_SET_MAX_PROTO_VERSION = 124
TLS_1_2 = 0x0303
APPLICATION_DATA = 23
RANDOM_SIZE, SECRET_SIZE = 32, 48
KEY_SIZE, SALT_SIZE = 16, 4
WANT_READ = 2
READ_SIZE = 65536


def _library() -> Any:
    library = ctypes.CDLL(ctypes.util.find_library("ssl"))
    for name in (
        "TLS_client_method", "SSL_CTX_new", "SSL_new", "BIO_s_mem", "BIO_new", "SSL_get_session",
    ):  # fmt: skip
        getattr(library, name).restype = ctypes.c_void_p
    return library


def _expand(secret: bytes, seed: bytes, size: int) -> bytes:
    """Return the pseudorandom bytes of RFC 5246 section 5, with SHA-256."""
    found, link = b"", seed
    while len(found) < size:
        link = hmac.digest(secret, link, hashlib.sha256)
        found += hmac.digest(secret, link + seed, hashlib.sha256)
    return found[:size]


class OpensslClient:
    """A client that sends its records when `flush` is called. It verifies no certificate."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, newest: int | None = None
    ) -> None:
        self._reader, self._writer = reader, writer
        self._lib = lib = _library()
        self._context = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method())))
        if newest is not None:
            lib.SSL_CTX_ctrl(self._context, SSL_CTRL_SET_MAX_PROTO_VERSION, ctypes.c_long(newest), None)
            assert lib.SSL_CTX_set_cipher_list(self._context, SEALED_CIPHERS) == 1
        self._tls = ctypes.c_void_p(lib.SSL_new(self._context))
        memory = ctypes.c_void_p(lib.BIO_s_mem())
        self._incoming, self._outgoing = (ctypes.c_void_p(lib.BIO_new(memory)) for _ in range(2))
        lib.SSL_set_bio(self._tls, self._incoming, self._outgoing)
        lib.SSL_set_connect_state(self._tls)

    @classmethod
    async def connect(cls, host: str, port: int, newest: int | None = None) -> Self:
        """Return a client whose handshake is over on both sides. In TLS 1.3, session tickets are the server's last."""
        client = cls(*await asyncio.open_connection(host, port), newest)
        while (result := client._lib.SSL_do_handshake(client._tls)) != 1:
            assert client._lib.SSL_get_error(client._tls, result) == WANT_READ
            client.flush()
            await client._fetch()
        client.flush()
        if newest is None:
            await client._fetch()
        return client

    def write(self, data: bytes) -> None:
        """Encrypt data."""
        assert self._lib.SSL_write(self._tls, data, len(data)) == len(data)

    def update_keys(self) -> None:
        """Take new keys with the next data, and ask the server for new ones of its own."""
        assert self._lib.SSL_key_update(self._tls, KEY_UPDATE_REQUESTED) == 1

    def ask_for_handshake(self) -> None:
        """Send the ClientHello of a new handshake (RFC 5246, renegotiation) when `flush` is called."""
        assert self._lib.SSL_renegotiate(self._tls) == 1
        assert self._lib.SSL_do_handshake(self._tls) == -1

    def seal(self, data: bytes, sequence: int) -> bytes:
        """Return the record of TLS 1.2 with this number, for a moment at which OpenSSL would make none.

        Call it before `ask_for_handshake`, which changes the random bytes. Source: RFC 5246 section 6.3, RFC 5288.
        """
        randoms = [ctypes.create_string_buffer(RANDOM_SIZE) for _ in range(2)]
        self._lib.SSL_get_server_random(self._tls, randoms[0], RANDOM_SIZE)
        self._lib.SSL_get_client_random(self._tls, randoms[1], RANDOM_SIZE)
        secret = ctypes.create_string_buffer(SECRET_SIZE)
        session = ctypes.c_void_p(self._lib.SSL_get_session(self._tls))
        assert self._lib.SSL_SESSION_get_master_key(session, secret, SECRET_SIZE) == SECRET_SIZE
        keys = _expand(
            secret.raw, b"key expansion" + randoms[0].raw + randoms[1].raw, 2 * (KEY_SIZE + SALT_SIZE)
        )
        key, salt = keys[:KEY_SIZE], keys[2 * KEY_SIZE : 2 * KEY_SIZE + SALT_SIZE]
        number = sequence.to_bytes(8, "big")
        head = bytes([APPLICATION_DATA]) + TLS_1_2.to_bytes(2, "big")
        sealed = number + AESGCM(key).encrypt(
            salt + number, data, number + head + len(data).to_bytes(2, "big")
        )
        return head + len(sealed).to_bytes(2, "big") + sealed

    def flush(self, *more: bytes) -> None:
        """Send all records that are written, and `more` behind them, at once."""
        buffer = ctypes.create_string_buffer(READ_SIZE)
        size = self._lib.BIO_read(self._outgoing, buffer, READ_SIZE)
        self._writer.write(b"".join((buffer.raw[: max(size, 0)], *more)))

    async def receive(self) -> bytes:
        """Return the next data. Fail if its records have other keys than the client expects."""
        buffer = ctypes.create_string_buffer(READ_SIZE)
        while (size := self._lib.SSL_read(self._tls, buffer, READ_SIZE)) <= 0:
            assert self._lib.SSL_get_error(self._tls, size) == WANT_READ, "a record cannot be read"
            await self._fetch()
        return buffer.raw[:size]

    async def record(self) -> tuple[int, bytes]:
        """Return type and body of the next record, encrypted as it is."""
        head = await self._reader.readexactly(5)
        return head[0], await self._reader.readexactly(int.from_bytes(head[3:], "big"))

    async def _fetch(self) -> None:
        data = await self._reader.read(READ_SIZE)
        assert data, "the server has closed the connection"
        self._lib.BIO_write(self._incoming, data, len(data))

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        self._lib.SSL_free(self._tls)
        self._lib.SSL_CTX_free(self._context)
