"""The NATS client protocol. See nats.pyx."""

from typing import NamedTuple

class Message(NamedTuple):
    operation: str
    subject: bytes | None
    sid: bytes | None
    reply: bytes | None
    header: bytes | None
    payload: bytes

def decode(data: bytes | bytearray | memoryview, payload_max: int = ...) -> tuple[Message | None, int]: ...
def encode_subscribe(subject: str, sid: int, queue_group: str | None = None) -> bytes: ...
def encode_publish_head(subject: str, reply: str | None = None) -> bytes: ...
def encode_publish(subject: str, reply: str | None, payload: bytes, header: bytes = b"") -> bytes: ...
def decode_publication(data: bytes) -> tuple[bytes, bytes, bytes, bytes, int] | None: ...
