"""What a probe measures: one figure a round, for the gateway and for what it is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaa_bench.compare.servers import Servers


@dataclass(frozen=True)
class Figure:
    """One measurement: its value in the unit of the probe, what else was seen, and what makes it doubtful."""

    value: float
    details: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How much work a measurement is: the whole, or a glance to see that all of it runs."""

    seconds: float = 4.0
    connections: int = 2000
    """Idle connections, or connections made, in one measurement."""
    operations: int = 200_000
    """Calls of a native codec in one measurement; slower ones get fewer."""

    @classmethod
    def quick(cls) -> "Scale":
        """A glance."""
        return cls(seconds=0.2, connections=100, operations=2000)


@dataclass(frozen=True)
class Subject:
    """One line of a probe: who is measured, and how."""

    title: str
    measure: Callable[[], Figure]


@dataclass(frozen=True)
class Probe:
    """A comparison other than a flood. The first subject is what the others are compared with."""

    name: str
    title: str
    unit: str
    subjects: Callable[["Servers", Scale], Sequence[Subject]]
    rate: int | None = None
    """Of a probe that is one point of a curve: messages a second."""
