"""The keys of a KP/UDP session, derived from a pre-shared key (HKDF with SHA-256, RFC 5869).

Source: docs/kp-over-udp-secure.md, "Keys".
"""

from __future__ import annotations

import hashlib
import hmac

SALT = b"kaa kp/udp 2"
SESSION_LABEL = b"session"
KEYS_LABEL = b"keys"
HASH_SIZE = 32
KEYS_SIZE = 88
"""Bytes of the keys of a generation: key 32 and IV 12 of the device, and the same of the server."""


def session_secret(key: bytes, transcript: bytes) -> bytes:
    """Return the secret of the session that an OPEN begins. `transcript` is that datagram up to its identity."""
    extracted = hmac.digest(SALT, key, hashlib.sha256)
    return _expand(extracted, SESSION_LABEL + hashlib.sha256(transcript).digest(), HASH_SIZE)


def generation_keys(secret: bytes, generation: int, resume_random: bytes) -> bytes:
    """Return the keys of a generation: KEYS_SIZE bytes."""
    return _expand(secret, KEYS_LABEL + generation.to_bytes(2, "big") + resume_random, KEYS_SIZE)


def _expand(secret: bytes, info: bytes, size: int) -> bytes:
    result = block = b""
    for number in range(1, -(-size // HASH_SIZE) + 1):
        block = hmac.digest(secret, block + info + bytes([number]), hashlib.sha256)
        result += block
    return result[:size]
