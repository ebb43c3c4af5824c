"""A DTLS 1.2 client that does its handshake by hand, with a pre-shared key whose identity may be any bytes.

OpenSSL's own client takes identities only up to their first zero byte. Cipher suite: TLS_PSK_WITH_AES_128_GCM_SHA256.

Source: RFC 6347; RFC 4279 section 2; RFC 5246 sections 5, 6.3 and 7.4.9; RFC 5288.
"""

import asyncio
import hashlib
import hmac
import os
import socket

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.nats import HOST

VERSION = b"\xfe\xfd"
HANDSHAKE, CHANGE_CIPHER_SPEC, ALERT = 22, 20, 21
CLIENT_HELLO, HELLO_VERIFY_REQUEST, SERVER_HELLO, SERVER_HELLO_DONE = 1, 3, 2, 14
CLIENT_KEY_EXCHANGE, FINISHED = 16, 20
SUITE = b"\x00\xa8"
TIMEOUT_S = 5.0


def prf(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """The PRF of TLS 1.2 (RFC 5246 section 5)."""
    seed = label + seed
    out, a = b"", seed
    while len(out) < size:
        a = hmac.digest(secret, a, hashlib.sha256)
        out += hmac.digest(secret, a + seed, hashlib.sha256)
    return out[:size]


def message(kind: int, number: int, body: bytes) -> bytes:
    """A handshake message in one fragment."""
    length = len(body).to_bytes(3, "big")
    return bytes([kind]) + length + number.to_bytes(2, "big") + bytes(3) + length + body


def record(kind: int, epoch: int, number: int, body: bytes) -> bytes:
    return (
        bytes([kind])
        + VERSION
        + epoch.to_bytes(2, "big")
        + number.to_bytes(6, "big")
        + len(body).to_bytes(2, "big")
        + body
    )


def records(datagram: bytes) -> list[tuple[int, int, bytes]]:
    """Type, epoch and body of each record."""
    found = []
    while datagram:
        size = int.from_bytes(datagram[11:13], "big")
        found.append((datagram[0], int.from_bytes(datagram[3:5], "big"), datagram[13 : 13 + size]))
        datagram = datagram[13 + size :]
    return found


async def shake_hands(port: int, identity: bytes, key: bytes) -> bool:
    """Do a handshake; whether the server has ended it with its Finished. `identity` is sent as it is."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind((HOST, 0))
        sock.connect((HOST, port))

        async def receive() -> list[tuple[int, int, bytes]]:
            return records(await asyncio.wait_for(loop.sock_recv(sock, 65536), TIMEOUT_S))

        random = os.urandom(32)

        def hello(cookie: bytes) -> bytes:
            return (
                VERSION + random + b"\x00" + bytes([len(cookie)]) + cookie + b"\x00\x02" + SUITE + b"\x01\x00"
            )

        sock.send(record(HANDSHAKE, 0, 0, message(CLIENT_HELLO, 0, hello(b""))))
        ((_, _, verify),) = await receive()
        assert verify[0] == HELLO_VERIFY_REQUEST
        transcript = message(CLIENT_HELLO, 1, hello(verify[15 : 15 + verify[14]]))
        sock.send(record(HANDSHAKE, 0, 1, transcript))
        server_random = b""
        done = False
        while not done:
            for _, _, body in await receive():
                transcript += body
                if body[0] == SERVER_HELLO:
                    server_random = body[14:46]
                done = done or body[0] == SERVER_HELLO_DONE
        exchange = message(CLIENT_KEY_EXCHANGE, 2, len(identity).to_bytes(2, "big") + identity)
        transcript += exchange
        size = len(key).to_bytes(2, "big")
        master = prf(size + bytes(len(key)) + size + key, b"master secret", random + server_random, 48)
        block = prf(master, b"key expansion", server_random + random, 40)
        verify_data = prf(master, b"client finished", hashlib.sha256(transcript).digest(), 12)
        finished = message(FINISHED, 3, verify_data)
        number = (1 << 48).to_bytes(8, "big")  # epoch 1, record 0
        associated = number + bytes([HANDSHAKE]) + VERSION + len(finished).to_bytes(2, "big")
        sealed = number + AESGCM(block[:16]).encrypt(block[32:36] + number, finished, associated)
        sock.send(record(HANDSHAKE, 0, 2, exchange))
        sock.send(record(CHANGE_CIPHER_SPEC, 0, 3, b"\x01") + record(HANDSHAKE, 1, 0, sealed))
        try:
            while True:
                for kind, epoch, _ in await receive():
                    if kind == HANDSHAKE and epoch == 1:
                        return True
                    if kind == ALERT:
                        return False
        except TimeoutError:
            return False
