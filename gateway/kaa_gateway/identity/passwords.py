"""Passwords at rest: `scrypt:<n>:<r>:<p>:<salt>:<key>`, salt and key in base64.

Source: RFC 7914, through hashlib.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re

N, R, P = 2**14, 8, 1
"""The cost of new hashes: 16 MiB, and about 30 ms of a processor."""
MEMORY_MAX = 64 * 1024 * 1024
"""Bytes that the check of a password may take; a hash that needs more is refused."""
SALT_SIZE = 16
KEY_SIZE = 32

_FORM = re.compile(r"scrypt:([0-9]{1,7}):([0-9]{1,3}):([0-9]{1,3}):([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)\Z")


def hashed(password: bytes) -> str:
    """Return the hash of a password, with a new salt."""
    salt = os.urandom(SALT_SIZE)
    key = _derive(password, salt, N, R, P, KEY_SIZE)
    return ":".join(
        ["scrypt", str(N), str(R), str(P), *(base64.b64encode(part).decode() for part in (salt, key))]
    )


def is_hash(text: str) -> bool:
    """Return whether a text is a hash that can be checked within `MEMORY_MAX`."""
    try:
        matches(b"", text)
    except ValueError:
        return False
    return True


def matches(password: bytes, hash_: str) -> bool:
    """Return whether a password belongs to a hash. Slow, without Python's lock. Raises ValueError if it is no hash."""
    found = _FORM.match(hash_)
    if found is None:
        raise ValueError("not a password hash")
    n, r, p = (int(found[group]) for group in (1, 2, 3))
    try:
        salt, key = (base64.b64decode(found[group], validate=True) for group in (4, 5))
    except binascii.Error as error:
        raise ValueError("not a password hash") from error
    return hmac.compare_digest(_derive(password, salt, n, r, p, len(key)), key)


def _derive(password: bytes, salt: bytes, n: int, r: int, p: int, size: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=size, maxmem=MEMORY_MAX)
