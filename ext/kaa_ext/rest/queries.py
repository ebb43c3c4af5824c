"""What queries of samples and of time series share: their times, pages and periods."""

import math
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated, TypeVar

import msgspec
from kaa_gateway.bus.messages import now_ms
from litestar.params import QueryParameter

from kaa_ext.operations import samples
from kaa_ext.rest.parameters import SEQUENCE_MAX, TIME_MAX, time
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


def source(services: Services, endpoint: str, app_version: str | None) -> samples.Source:
    """Return the samples of an endpoint that epts keeps."""
    return samples.Source(services.instances.epts, app_version or epts.ANY, endpoint)


async def page(
    services: Services,
    meant: samples.Source,
    find: Callable[[samples.Sample], T | None],
    begin: int,
    end: int,
    limit: int,
    start: str | None,
) -> tuple[list[tuple[samples.Sample, T]], str | None]:
    """Return a page of samples with what `find` finds in them, without those in which it finds nothing.

    The second value is the `start` of the next page.
    """
    position = None if start is None else samples.Position(*map(int, start.split("-")))
    if position is not None and position.sequence > SEQUENCE_MAX:
        raise wrong("query", "start", "Expected the next of the page before")
    found: list[tuple[samples.Sample, T]] = []
    with about("query", "from"):
        between = samples.between(
            services.session, meant, begin, end, position, batches_max=samples.BATCHES_MAX
        )
        async with aclosing(between) as stored:
            async for sample in stored:
                value = find(sample)
                if value is None:
                    continue
                if len(found) == limit:
                    return found, f"{sample.position.sequence}-{sample.position.offset}"
                found.append((sample, value))
    return found, None


async def periods(
    services: Services,
    meant: samples.Source,
    number: Callable[[samples.Sample], float | None],
    begin: int,
    end: int,
    period: int,
) -> Periods:
    """Return the numbers that `number` finds in samples, by period."""
    end = min(end, now_ms())
    period = max(period, math.ceil((end - begin + 1) / PERIODS_MAX))
    with about("query", "from"):
        found = await samples.downsampled(services.session, meant, number, begin, end, period)
    return Periods(period, [Period(*each) for each in found])
