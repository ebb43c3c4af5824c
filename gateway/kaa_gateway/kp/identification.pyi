"""The identification of endpoint tokens. See identification.pyx."""

from collections.abc import Generator

class Identification:
    waiting_messages: int
    def set_limits(self, waiting_count_max: int, waiting_bytes_max: int) -> None: ...
    def retry(self) -> Generator[int]: ...
