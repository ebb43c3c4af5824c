"""Types of values in scenarios."""

import re

import msgspec

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(float):
    """A duration in seconds, written with a unit: `200ms`, `1.5s`, `10m`, `1h`."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Parse a duration. Raise ValueError for a wrong one."""
        found = DURATION.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(f"{text!r} is not a duration such as 200ms, 1.5s, 10m or 1h")
        return cls(float(found[1]) * UNITS[found[2]])


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A part of a scenario. An unknown key is an error."""
