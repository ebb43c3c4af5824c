"""The header of the PROXY protocol. See proxy_header.pyx."""

from typing import NamedTuple

FORMAT_REASONS: tuple[str, ...]

class Header(NamedTuple):
    size: int
    address: bytes
    tls: bool
    verified: bool
    authority: bytes | None
    common_name: bytes | None

def decode_proxy_header(data: bytes | bytearray | memoryview, *, datagram: bool = False) -> Header | None: ...
