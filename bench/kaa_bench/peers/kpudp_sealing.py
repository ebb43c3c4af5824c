"""The encryption of KP/UDP version 2 on the side of a device, written from its specification with `cryptography`.

It shares no code with the gateway: each of the two proves that the other does what docs/kp-over-udp-secure.md says.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

FIRST = b"\xb2"
HELLO, CHALLENGE, OPEN, SEALED, RESUME, UNKNOWN_SESSION, PATH_CHECK, PATH_PROOF = range(1, 9)
SUITE = 1
OFFERED = 1 << (SUITE - 1)
CONNECTION_ID_SIZE = 8
RANDOM_SIZE = 16
HELLO_SIZE = 48
CHALLENGE_SIZE = 47
SEALED_HEADER_SIZE = 14
RESUME_RANDOM_SIZE = 8
NO_RANDOM = bytes(RESUME_RANDOM_SIZE)
SALT = b"kaa kp/udp 2"


class Challenge(NamedTuple):
    """What a server has answered to HELLO."""

    connection_id: bytes
    suite: int
    client_random: bytes
    rest: bytes
    """Stamp and cookie."""


class Saved(NamedTuple):
    """What a device keeps to resume a session after it has lost everything else."""

    connection_id: bytes
    secret: bytes
    generation: int
    """That was used last. The next one must be stored before it is used."""


def hello(client_random: bytes) -> bytes:
    """Return HELLO, as long as its answer may be."""
    return (FIRST + bytes([HELLO, OFFERED]) + client_random).ljust(HELLO_SIZE, b"\0")


def read_challenge(datagram: bytes) -> Challenge | None:
    """Return what stands in CHALLENGE, or None if it is another datagram."""
    if datagram[:2] != FIRST + bytes([CHALLENGE]) or len(datagram) < CHALLENGE_SIZE:
        return None
    return Challenge(datagram[2:10], datagram[10], datagram[11:27], datagram[27:CHALLENGE_SIZE])


def transcript(challenge: Challenge, identity: bytes) -> bytes:
    """Return OPEN up to its identity."""
    return (
        FIRST + bytes([OPEN]) + challenge.connection_id + bytes([OFFERED, challenge.suite])
        + challenge.client_random + challenge.rest + bytes([len(identity)]) + identity
    )  # fmt: skip


def session_secret(key: bytes, opening: bytes) -> bytes:
    """Return the secret of the session that an OPEN with this transcript begins."""
    info = b"session" + hashlib.sha256(opening).digest()
    return HKDF(SHA256(), 32, SALT, info).derive(key)


class Direction:
    """Seals or opens the datagrams of one direction in one generation."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self.key, self.iv = key, iv
        self._cipher = ChaCha20Poly1305(key)

    def nonce(self, counter: int) -> bytes:
        """Return the nonce of a counter."""
        return (int.from_bytes(self.iv) ^ counter).to_bytes(12)

    def seal(self, header: bytes, counter: int, plain: bytes) -> bytes:
        """Return a datagram. `header` ends before the counter."""
        header += counter.to_bytes(4)
        return header + self._cipher.encrypt(self.nonce(counter), plain, header)

    def unseal(self, datagram: bytes, header_size: int = SEALED_HEADER_SIZE) -> bytes | None:
        """Return the plain bytes of a datagram, or None if it is not authentic."""
        header, counter = datagram[:header_size], int.from_bytes(datagram[header_size - 4 : header_size])
        try:
            return self._cipher.decrypt(self.nonce(counter), datagram[header_size:], header)
        except InvalidTag:
            return None


class Generation:
    """The keys of both directions in one generation."""

    def __init__(self, secret: bytes, number: int, resume_random: bytes = NO_RANDOM) -> None:
        info = b"keys" + number.to_bytes(2) + resume_random
        keys = HKDFExpand(SHA256(), 88, info).derive(secret)
        self.device = Direction(keys[:32], keys[32:44])
        self.server = Direction(keys[44:76], keys[76:])


class Sealing:
    """A session as its device sees it. `opening` is what stands before the counter until the server has answered."""

    def __init__(
        self, connection_id: bytes, secret: bytes, number: int, opening: bytes, random: bytes
    ) -> None:
        self.connection_id = connection_id
        self.secret = secret
        self.number = number
        self.generation = Generation(secret, number, random)
        self.confirmed = False
        self.sent = 0
        self._opening = opening
        self._received: set[int] = set()

    @classmethod
    def open(cls, challenge: Challenge, identity: bytes, key: bytes) -> Sealing:
        """Return the session that begins with OPEN."""
        opening = transcript(challenge, identity)
        return cls(challenge.connection_id, session_secret(key, opening), 0, opening, NO_RANDOM)

    @classmethod
    def resume(cls, saved: Saved, random: bytes) -> Sealing:
        """Return a session in its next generation, which begins with RESUME."""
        number = saved.generation + 1
        opening = FIRST + bytes([RESUME]) + saved.connection_id + number.to_bytes(2) + random
        return cls(saved.connection_id, saved.secret, number, opening, random)

    def saved(self) -> Saved:
        """Return what has to be kept to resume it."""
        return Saved(self.connection_id, self.secret, self.number)

    def seal(self, plain: bytes, kind: int = SEALED) -> bytes:
        """Return the next datagram to the server."""
        counter = self.sent
        self.sent += 1
        header = self._opening
        if self.confirmed or kind != SEALED:
            header = FIRST + bytes([kind]) + self.connection_id
        return self.generation.device.seal(header, counter, plain)

    def unseal(self, datagram: bytes) -> bytes | None:
        """Return the plain bytes of a datagram of the server that is authentic and new, or None."""
        counter = int.from_bytes(datagram[10:14])
        if datagram[2:10] != self.connection_id or counter in self._received:
            return None
        plain = self.generation.server.unseal(datagram)
        if plain is not None:
            self._received.add(counter)
            self.confirmed = True
        return plain
