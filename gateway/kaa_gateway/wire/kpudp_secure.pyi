"""KP/UDP, version 2: what stands around its sealed frames. See kpudp_secure.pyx."""

from enum import IntEnum
from typing import NamedTuple

SECURE_REASONS: tuple[str, ...]

class Type(IntEnum):
    HELLO = 1
    CHALLENGE = 2
    OPEN = 3
    SEALED = 4
    RESUME = 5
    UNKNOWN_SESSION = 6
    PATH_CHECK = 7
    PATH_PROOF = 8

class SecureDatagram(NamedTuple):
    type: Type
    connection_id: bytes = b""
    offered: int = 0
    suite: int = 0
    client_random: bytes = b""
    stamp: int = 0
    cookie: bytes = b""
    identity: bytes = b""
    generation: int = 0
    resume_random: bytes = b""
    counter: int = 0
    header: bytes = b""
    sealed: bytes = b""

def decode_secure(datagram: bytes) -> SecureDatagram: ...
