"""The syntax of HTTP/1.1 requests. See http.pyx."""

from typing import NamedTuple

class Head(NamedTuple):
    method: bytes
    target: bytes
    version: tuple[int, int]
    fields: list[tuple[bytes, bytes]]

def read_head(data: bytes) -> Head: ...
