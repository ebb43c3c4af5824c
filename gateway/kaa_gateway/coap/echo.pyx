"""Values of the Echo option: a peer that returns one receives what is sent to its address. Nothing is kept for it.

Source: RFC 9175 section 2 and appendix A, item 2 (time-based values).
"""

import hashlib
import hmac

cdef enum:
    TIME_SIZE = 4  # bytes
    MAC_SIZE = 8


cdef class EchoValues:
    """Makes and checks values, which are good for `lifetime` seconds and one address."""

    def __init__(self, bytes secret not None, double lifetime):
        self.secret = secret
        self.lifetime = lifetime

    cdef bytes make(self, bytes address, double now):
        """The value for an address; `now` is the loop's time."""
        time = (<long>now).to_bytes(TIME_SIZE, "big")
        return time + hashlib.blake2s(time + address, digest_size=MAC_SIZE, key=self.secret).digest()

    cdef bint is_good(self, bytes address, Slice value, double now) except -1:
        """Whether a value was made for this address, and lately."""
        cdef bytes given = value.data[:value.size]
        cdef double made
        if len(given) != TIME_SIZE + MAC_SIZE:
            return False
        made = int.from_bytes(given[:TIME_SIZE], "big")
        return made <= now < made + self.lifetime and hmac.compare_digest(given, self.make(address, made))
