"""What a worker counts. See counters.pyx."""

from collections.abc import Mapping

class Counters:
    def by_protocol(self) -> dict[str, dict[str, int]]: ...
    def by_reason(self) -> Mapping[tuple[str, str], int]: ...
