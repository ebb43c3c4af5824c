"""KP over UDP: frames and datagrams. See kpudp.pyx."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from kaa_gateway.errors import ProtocolError as ProtocolError

MALFORMED_REASONS: tuple[str, ...]

class Type(IntEnum):
    DATA = 1
    CONFIRMED_DATA = 2
    REQUEST = 3
    ACK = 4
    RESPONSE = 5
    PUSH = 6
    PING = 7
    PONG = 8
    RESET = 9

class Reason(IntEnum):
    MALFORMED = 1
    UNSUPPORTED_VERSION = 2
    UNKNOWN_ALIAS = 3
    ALIAS_HAS_ANOTHER_PATH = 4
    UNKNOWN_TYPE = 5
    NOT_WANTED = 6

class Message(NamedTuple):
    type: Type
    message_id: int
    alias: int = 0
    path: str | None = None
    request_id: int = 0
    status: int = 0
    reason_phrase: str = ""
    payload: bytes = b""

def decode(datagram: bytes) -> tuple[int, list[Message]]: ...
def encode(epoch: int, messages: Sequence[Message], *, last_has_length: bool = False) -> bytes: ...
