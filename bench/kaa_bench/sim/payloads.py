"""Makes the samples of devices: values that change from sample to sample, and their JSON."""

import math
import random
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from kaa_bench.errors import BenchError

METRES_PER_DEGREE = 111_320.0
"""Metres of a degree of latitude, and of longitude at the equator."""
TURN_DEGREES = 20.0
"""The greatest turn of a track between two samples."""


class Source(Protocol):
    """A value of a sample; each device has its own."""

    def next(self, seconds: float) -> Any:
        """Return the next value, `elapsed` seconds after the last one."""
        ...


class _Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    pass


class Walk(_Kind, frozen=True, tag="walk"):
    """A number that changes by small steps."""

    start: float
    step: Annotated[float, Meta(ge=0)]
    low: float = -math.inf
    high: float = math.inf
    digits: Annotated[int, Meta(ge=0, le=12)] = 2

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high:
            raise ValueError("`start` lies between `low` and `high`")

    def source(self, chance: random.Random) -> Source:
        """Return a source of these values."""
        return _Walking(self, chance)


class Track(_Kind, frozen=True, tag="track"):
    """A position that moves, in degrees, at a speed in metres a second."""

    latitude: Annotated[float, Meta(ge=-89, le=89)]
    longitude: Annotated[float, Meta(ge=-180, le=180)]
    speed: Annotated[float, Meta(ge=0)] = 10.0

    def source(self, chance: random.Random) -> Source:
        """Return a source of these values."""
        return _Moving(self, chance)


class Counter(_Kind, frozen=True, tag="counter"):
    """The number of samples before this one."""

    def source(self, _: random.Random) -> Source:
        """Return a source of these values."""
        return _Counting()


class Choice(_Kind, frozen=True, tag="choice"):
    """One of some values."""

    values: Annotated[tuple[Any, ...], Meta(min_length=1)]

    def source(self, chance: random.Random) -> Source:
        """Return a source of these values."""
        return _Choosing(self.values, chance)


class Constant(_Kind, frozen=True, tag="constant"):
    """A constant."""

    value: Any

    def source(self, chance: random.Random) -> Source:
        """Return a source of these values."""
        return _Choosing((self.value,), chance)


class Timestamp(_Kind, frozen=True, tag="timestamp"):
    """The UNIX time in milliseconds."""

    def source(self, _: random.Random) -> Source:
        """Return a source of these values."""
        return _Time()


Value = Walk | Track | Counter | Choice | Constant | Timestamp


class _Walking:
    def __init__(self, kind: Walk, chance: random.Random) -> None:
        self._kind, self._chance, self._at = kind, chance, kind.start

    def next(self, seconds: float) -> float:
        step = self._chance.uniform(-self._kind.step, self._kind.step)
        self._at = min(self._kind.high, max(self._kind.low, self._at + step))
        return round(self._at, self._kind.digits)


class _Moving:
    def __init__(self, kind: Track, chance: random.Random) -> None:
        self._chance, self._speed = chance, kind.speed
        self._latitude, self._longitude = kind.latitude, kind.longitude
        self._heading = chance.uniform(0, 2 * math.pi)

    def next(self, seconds: float) -> dict[str, float]:
        self._heading += math.radians(self._chance.uniform(-TURN_DEGREES, TURN_DEGREES))
        metres = self._speed * seconds
        self._latitude += math.cos(self._heading) * metres / METRES_PER_DEGREE
        self._latitude = min(89.0, max(-89.0, self._latitude))
        across = math.sin(self._heading) * metres / METRES_PER_DEGREE
        self._longitude += across / math.cos(math.radians(self._latitude))
        self._longitude = (self._longitude + 180) % 360 - 180
        return {"latitude": round(self._latitude, 6), "longitude": round(self._longitude, 6)}


class _Counting:
    def __init__(self) -> None:
        self._count = -1

    def next(self, seconds: float) -> int:
        self._count += 1
        return self._count


class _Choosing:
    def __init__(self, values: tuple[Any, ...], chance: random.Random) -> None:
        self._values, self._chance = values, chance

    def next(self, seconds: float) -> Any:
        return self._chance.choice(self._values)


class _Time:
    def next(self, seconds: float) -> int:
        return time.time_ns() // 1_000_000


class Samples:
    """The samples of a device, `batch` of them in a message, evenly over the interval."""

    def __init__(
        self, values: Mapping[str, Value], batch: int, interval: float, chance: random.Random
    ) -> None:
        self._sources = {name: value.source(chance) for name, value in values.items()}
        self._batch = batch
        self._seconds = interval / batch

    def message(self) -> bytes:
        """Return the next payload: an object, or an array of them."""
        samples = [
            {name: source.next(self._seconds) for name, source in self._sources.items()}
            for _ in range(self._batch)
        ]
        return msgspec.json.encode(samples if self._batch > 1 else samples[0])


class Recorded:
    """Messages that are the contents of files, in turn, beginning with another one for each device."""

    def __init__(self, files: tuple[str, ...], number: int) -> None:
        self._contents = [content_of(file) for file in files]
        self._next = number

    def message(self) -> bytes:
        """Return the next payload."""
        content = self._contents[self._next % len(self._contents)]
        self._next += 1
        return content


@cache
def content_of(file: str) -> bytes:
    """Return the content of a file. Raise BenchError if it cannot be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise BenchError(f"{file} cannot be read: {error.strerror}") from None
