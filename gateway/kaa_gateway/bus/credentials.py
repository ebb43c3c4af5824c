"""Reads credentials of NATS: the `.creds` file with a user's JWT and the seed of the user's key.

The key signs what the server asks with (the nonce of INFO). Signing is cryptography's; a seed is the text of
NATS's nkeys: base32 of two prefix bytes, 32 bytes of an Ed25519 private key, and a CRC-16 of both.

Source: NATS documentation, "Decentralized JWT authentication" and "NKeys"; nkeys, `strkey.go`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kaa_gateway.errors import BusError

if TYPE_CHECKING:
    from pathlib import Path

SEED_PREFIX = 18 << 3
"""The first five bits of a seed. It makes the text begin with S."""
USER_PREFIX = 20 << 3
"""The eight bits behind them, for the key of a user. It makes the second letter U."""
KEY_SIZE = 32
"""Bytes of an Ed25519 private key."""


class Credentials:
    """A `.creds` file: a user JWT, and the seed that signs the server's nonce."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raise BusError if it cannot be used."""
        self._path = path
        self.read()

    def read(self) -> None:
        """Read the file again, which may have been renewed. Raise BusError if it cannot be used."""
        path = self._path
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BusError("nats_credentials", f"{path} cannot be read: {error}") from error
        sections = [
            lines[i + 1].strip() for i, line in enumerate(lines[:-1]) if line.startswith("-----BEGIN")
        ]
        if len(sections) != 2:
            raise BusError("nats_credentials", f"{path} must hold a user JWT and a seed")
        jwt, seed = sections
        try:
            self._key = user_key(seed)
        except ValueError as error:
            raise BusError("nats_credentials", f"{path} holds no valid seed") from error
        self.jwt = jwt

    def sign(self, nonce: str) -> str:
        """Return the nonce's signature, in base64url as CONNECT has it."""
        return base64.urlsafe_b64encode(self._key.sign(nonce.encode())).rstrip(b"=").decode()


def user_key(seed: str) -> Ed25519PrivateKey:
    """Return the private key of a user's seed. Raise ValueError if the text is not such a seed."""
    data = base64.b32decode(seed + "=" * (-len(seed) % 8))
    if len(data) != 2 + KEY_SIZE + 2:
        raise ValueError("wrong length")
    body = data[:-2]
    # XMODEM's CRC-16, which nkeys uses, is what binascii has.
    if binascii.crc_hqx(body, 0).to_bytes(2, "little") != data[-2:]:
        raise ValueError("wrong checksum")
    if body[0] & 0xF8 != SEED_PREFIX or (body[0] & 7) << 5 | body[1] >> 3 != USER_PREFIX:
        raise ValueError("not the seed of a user")
    return Ed25519PrivateKey.from_private_bytes(body[2:])
