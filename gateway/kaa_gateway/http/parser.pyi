"""HTTP/1.1 requests out of a byte stream. See parser.pyx."""

from collections.abc import Iterable

class RequestLimits:
    def __init__(self, body_size: int, header_size: int, url_length: int) -> None: ...

def read_requests(
    pieces: Iterable[bytes], limits: RequestLimits
) -> tuple[list[tuple[bytes, bytes, bool]], int | None]: ...
