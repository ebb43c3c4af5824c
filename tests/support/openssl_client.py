"""A TLS 1.3 client on OpenSSL itself, which can ask for new keys: the `ssl` module of Python cannot."""

import asyncio
import ctypes
import ctypes.util
from typing import Any, Self

KEY_UPDATE_REQUESTED = 1
WANT_READ = 2
READ_SIZE = 65536


def _library() -> Any:
    library = ctypes.CDLL(ctypes.util.find_library("ssl"))
    for name in (
        "TLS_client_method", "SSL_CTX_new", "SSL_new", "BIO_s_mem", "BIO_new",
    ):  # fmt: skip
        getattr(library, name).restype = ctypes.c_void_p
    return library


class OpensslClient:
    """A client that sends its records when `flush` is called. It verifies no certificate."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._lib = lib = _library()
        self._context = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method())))
        self._tls = ctypes.c_void_p(lib.SSL_new(self._context))
        memory = ctypes.c_void_p(lib.BIO_s_mem())
        self._incoming, self._outgoing = (ctypes.c_void_p(lib.BIO_new(memory)) for _ in range(2))
        lib.SSL_set_bio(self._tls, self._incoming, self._outgoing)
        lib.SSL_set_connect_state(self._tls)

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        """Return a client whose handshake is over on both sides: the server has sent its session tickets."""
        client = cls(*await asyncio.open_connection(host, port))
        while (result := client._lib.SSL_do_handshake(client._tls)) != 1:
            assert client._lib.SSL_get_error(client._tls, result) == WANT_READ
            client.flush()
            await client._fetch()
        client.flush()
        await client._fetch()
        return client

    def write(self, data: bytes) -> None:
        """Encrypt data."""
        assert self._lib.SSL_write(self._tls, data, len(data)) == len(data)

    def update_keys(self) -> None:
        """Take new keys with the next data, and ask the server for new ones of its own."""
        assert self._lib.SSL_key_update(self._tls, KEY_UPDATE_REQUESTED) == 1

    def flush(self) -> None:
        """Send all records that are written, at once."""
        buffer = ctypes.create_string_buffer(READ_SIZE)
        size = self._lib.BIO_read(self._outgoing, buffer, READ_SIZE)
        if size > 0:
            self._writer.write(buffer.raw[:size])

    async def receive(self) -> bytes:
        """Return the next data. Fail if its records have other keys than the client expects."""
        buffer = ctypes.create_string_buffer(READ_SIZE)
        while (size := self._lib.SSL_read(self._tls, buffer, READ_SIZE)) <= 0:
            assert self._lib.SSL_get_error(self._tls, size) == WANT_READ, "a record cannot be read"
            await self._fetch()
        return buffer.raw[:size]

    async def _fetch(self) -> None:
        data = await self._reader.read(READ_SIZE)
        assert data, "the server has closed the connection"
        self._lib.BIO_write(self._incoming, data, len(data))

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        self._lib.SSL_free(self._tls)
        self._lib.SSL_CTX_free(self._context)
