"""Values of the Echo option: a peer that returns one receives what is sent to its address. The server keeps no state.

Source: RFC 9175 section 2 and appendix A, item 2 (time-based values).
"""

import hashlib
import hmac

TIME_SIZE = 4
"""Bytes."""
MAC_SIZE = 8
"""Bytes."""


class EchoValues:
    """Makes and checks values, each of which is valid for `lifetime` seconds and one address."""

    def __init__(self, secret: bytes, lifetime: float) -> None:
        self._secret = secret
        self._lifetime = lifetime

    def make(self, address: bytes, now: float) -> bytes:
        """Return the value for an address; `now` is the loop's time."""
        time = int(now).to_bytes(TIME_SIZE, "big")
        return time + hashlib.blake2s(time + address, digest_size=MAC_SIZE, key=self._secret).digest()

    def is_valid(self, address: bytes, value: bytes, now: float) -> bool:
        """Return whether a value was made for this address, and less than its lifetime ago."""
        if len(value) != TIME_SIZE + MAC_SIZE:
            return False
        made = int.from_bytes(value[:TIME_SIZE], "big")
        return made <= now < made + self._lifetime and hmac.compare_digest(value, self.make(address, made))
