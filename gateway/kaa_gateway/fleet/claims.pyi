"""The claims of a worker that have not been answered yet. See claims.pyx."""

from kaa_gateway.counters import Histogram

class Claims:
    @property
    def results(self) -> dict[str, int]: ...
    time: Histogram
    def __len__(self) -> int: ...
