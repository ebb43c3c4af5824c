"""The time series that an instance of epts finds in samples, where other processes can read them.

State `time-series`: key `definitions`. Each replica writes its settings when it starts.
"""

import msgspec

from kaa_ext.services.epts.extraction import AUTO, Extraction, Series

STATE = "time-series"
KEY = "definitions"


class Definitions(msgspec.Struct, frozen=True, rename="camel"):
    """Time series by name. With `auto_extraction`, each number in a field of a sample is one too."""

    time_series: dict[str, Series] = {}
    auto_extraction: bool = False

    def extraction(self, name: str) -> Extraction | None:
        """Return what finds the time series of this name; None if there is none."""
        if name in self.time_series:
            return Extraction({name: self.time_series[name]}, auto=False)
        if name.startswith(AUTO) and self.auto_extraction:
            return Extraction({}, auto=True)
        return None
