"""What queries of samples and of time series share: their times, pages and periods."""

import math
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from kaa_gateway.bus.messages import now_ms
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter

from kaa_ext.operations import samples
from kaa_ext.rest.parameters import SEQUENCE_MAX, TIME_MAX, AnyAppVersion, Endpoint, Limit, time
from kaa_ext.rest.problems import about, wrong
from kaa_ext.rest.services import Services
from kaa_ext.services import epts

T = TypeVar("T")

PERIODS_MAX = 10_000
"""Periods of one answer."""

From = Annotated[int, time("from", "The first time of arrival.")]
To = Annotated[int, time("to", "The last time of arrival.")]
Start = Annotated[
    str | None,
    QueryParameter(pattern=r"^[0-9]{1,15}-[0-9]{1,7}(?!\n)$", description="The `next` of the page before."),
]
PeriodLength = Annotated[
    int,
    QueryParameter(
        ge=1,
        le=TIME_MAX,
        description="Length of a period in milliseconds. The answer has a longer one if there were more than "
        "10,000 periods.",
    ),
]


class Period(msgspec.Struct):
    """The numbers in a period. `timestamp` is its begin, a UNIX time in milliseconds."""

    timestamp: int
    count: int
    average: float
    minimum: float
    maximum: float


class Periods(msgspec.Struct):
    """The periods in which there are numbers. `period` is their length in milliseconds."""

    period: int
    periods: list[Period]


class Page(NamedTuple):
    """The page of an answer that is asked for. `position` is that of its first sample, None for the first page."""

    begin: int
    end: int
    limit: int
    position: samples.Position | None


class PeriodRange(NamedTuple):
    """The periods of an answer that are asked for. `length` is in milliseconds."""

    begin: int
    end: int
    length: int


def source(
    services: NamedDependency[Services], endpoint: Endpoint, app_version: AnyAppVersion = None
) -> samples.Source:
    """Return the samples of an endpoint that epts keeps."""
    return samples.Source(services.instances.epts, app_version or epts.ANY, endpoint)


def page(from_: From = 0, to: To = TIME_MAX, limit: Limit = 100, start: Start = None) -> Page:
    """Return the page that the parameters of a request ask for."""
    position = None if start is None else samples.Position(*map(int, start.split("-")))
    if position is not None and position.sequence > SEQUENCE_MAX:
        raise wrong("query", "start", "Expected the next of the page before")
    return Page(from_, to, limit, position)


def period_range(from_: From, period: PeriodLength, to: To = TIME_MAX) -> PeriodRange:
    """Return the periods that the parameters of a request ask for. They are longer if there were too many."""
    end = min(to, now_ms())
    return PeriodRange(from_, end, max(period, math.ceil((end - from_ + 1) / PERIODS_MAX)))


DEPENDENCIES = {
    name: Provide(provider, sync_to_thread=False)
    for name, provider in (("source", source), ("page", page), ("period_range", period_range))
}
"""What the routes of samples and time series make of the parameters that they share."""


async def find_page(
    services: Services, source: samples.Source, page: Page, find: Callable[[samples.Sample], T | None]
) -> tuple[list[tuple[samples.Sample, T]], str | None]:
    """Return a page of samples with what `find` finds in them, without those in which it finds nothing.

    The second value is the `start` of the next page.
    """
    found: list[tuple[samples.Sample, T]] = []
    with about("query", "from"):
        between = samples.between(
            services.session, source, page.begin, page.end, page.position, batches_max=samples.BATCHES_MAX
        )
        async with aclosing(between) as stored:
            async for sample in stored:
                value = find(sample)
                if value is None:
                    continue
                if len(found) == page.limit:
                    return found, f"{sample.position.sequence}-{sample.position.offset}"
                found.append((sample, value))
    return found, None


async def find_last(
    services: Services, source: samples.Source, begin: int, find: Callable[[samples.Sample], T | None]
) -> tuple[samples.Sample, T] | None:
    """Return the last sample in which `find` finds something, with what it finds; None if there is none."""
    with about("query", "from"):
        return await samples.last(services.session, source, find, begin)


async def find_periods(
    services: Services,
    source: samples.Source,
    periods: PeriodRange,
    number: Callable[[samples.Sample], float | None],
) -> Periods:
    """Return the numbers that `number` finds in samples, by period."""
    with about("query", "from"):
        found = await samples.downsampled(services.session, source, number, *periods)
    return Periods(periods.length, [Period(*each) for each in found])
