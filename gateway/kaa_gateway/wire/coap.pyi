"""CoAP messages. See coap.pyx."""

from typing import NamedTuple

FORMAT_REASONS: tuple[str, ...]

class Message(NamedTuple):
    type: int
    code: int
    message_id: int
    token: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = b""

def decode(datagram: bytes) -> Message: ...
def encode(message: Message) -> bytes: ...
