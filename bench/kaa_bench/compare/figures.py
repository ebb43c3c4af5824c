"""The figures of probes: one a round, for the gateway and for each other subject."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaa_bench.compare.servers import Servers


@dataclass(frozen=True)
class Figure:
    """A measurement: the value in the unit of the probe, details, and remarks on its reliability."""

    value: float
    details: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """The work of a measurement: full, or little to check that all of it runs."""

    seconds: float = 4.0
    connections: int = 2000
    """Idle connections, or connections made, in a measurement."""
    operations: int = 200_000
    """Calls of a native codec in a measurement; slower codecs get fewer."""

    @classmethod
    def quick(cls) -> "Scale":
        """Little work."""
        return cls(seconds=0.2, connections=100, operations=2000)


@dataclass(frozen=True)
class Subject:
    """A line of a probe: what is measured, and how."""

    title: str
    measure: Callable[[], Figure]


@dataclass(frozen=True)
class Probe:
    """A comparison other than a flood. The other subjects are compared with the first."""

    name: str
    title: str
    unit: str
    subjects: Callable[["Servers", Scale], Sequence[Subject]]
    rate: int | None = None
    """Messages a second, for a probe that is a point of a curve."""
