"""The routes of data samples and time series."""

import math
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from kaa_gateway.bus.messages import now_ms
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from kaa_ext.operations import samples
from kaa_ext.rest.parameters import PREFIX, SEQUENCE_MAX, TIME_MAX, AnyAppVersion, Endpoint, Limit, time
from kaa_ext.rest.problems import about, responses, wrong
from kaa_ext.rest.services import Services
from kaa_ext.services import epts

PERIODS_MAX = 10_000
"""Periods of one answer."""

Metric = Annotated[
    str,
    QueryParameter(
        min_length=1, max_length=256, description="Name of the metric: a field of samples that are objects."
    ),
]
From = Annotated[int, time("from", "The first time.")]
To = Annotated[int, time("to", "The last time.")]
Start = Annotated[
    str | None,
    QueryParameter(pattern=r"^[0-9]{1,15}-[0-9]{1,7}(?!\n)$", description="The `next` of the page before."),
]


class Sample(msgspec.Struct, rename="camel"):
    """A data sample as the device sent it. `timestamp` is the UNIX time in milliseconds of its arrival."""

    timestamp: int
    app_version: str
    sample: Any


class SamplePage(msgspec.Struct):
    """A page of samples; `next` is the `start` of the next page, null after the last one."""

    samples: list[Sample]
    next: str | None


class Point(msgspec.Struct):
    """A value of a metric. `timestamp` is the UNIX time in milliseconds of its arrival."""

    timestamp: int
    value: Any


class PointPage(msgspec.Struct):
    """A page of points; `next` is the `start` of the next page, null after the last one."""

    points: list[Point]
    next: str | None


class Period(msgspec.Struct):
    """The numbers of a metric in a period. `timestamp` is its begin, a UNIX time in milliseconds."""

    timestamp: int
    count: int
    average: float
    minimum: float
    maximum: float


class Periods(msgspec.Struct):
    """The periods in which there are numbers. `period` is their length in milliseconds."""

    period: int
    periods: list[Period]


class SampleController(Controller):
    """The routes of samples and time series."""

    path = PREFIX
    tags = ("time series",)

    @get(
        "/endpoints/{endpoint:str}/samples",
        operation_id="querySamples",
        summary="Show the data samples of an endpoint",
        description="Samples as the device sent them, the oldest first.",
        response_description="A page.",
        responses=responses(),
    )
    async def query_samples(
        self,
        services: NamedDependency[Services],
        endpoint: Endpoint,
        app_version: AnyAppVersion = None,
        from_: From = 0,
        to: To = TIME_MAX,
        limit: Limit = 100,
        start: Start = None,
    ) -> SamplePage:
        """Show samples."""
        found, following = await _page(services, endpoint, app_version, None, from_, to, limit, start)
        shown = [Sample(each.timestamp, each.app_version_name, msgspec.Raw(each.content)) for each in found]
        return SamplePage(shown, following)

    @get(
        "/endpoints/{endpoint:str}/time-series",
        operation_id="queryTimeSeries",
        summary="Show the values of a metric",
        description="The oldest first.",
        response_description="A page.",
        responses=responses(),
    )
    async def query_time_series(
        self,
        services: NamedDependency[Services],
        endpoint: Endpoint,
        metric: Metric,
        app_version: AnyAppVersion = None,
        from_: From = 0,
        to: To = TIME_MAX,
        limit: Limit = 100,
        start: Start = None,
    ) -> PointPage:
        """Show the values of a metric."""
        found, following = await _page(services, endpoint, app_version, metric, from_, to, limit, start)
        return PointPage([_point(each, metric) for each in found], following)

    @get(
        "/endpoints/{endpoint:str}/time-series/last",
        operation_id="getLastValue",
        summary="Show the last value of a metric",
        response_description="The last value.",
        responses=responses(404),
    )
    async def get_last_value(
        self,
        services: NamedDependency[Services],
        endpoint: Endpoint,
        metric: Metric,
        app_version: AnyAppVersion = None,
        from_: From = 0,
    ) -> Point:
        """Show the last value of a metric."""
        source = samples.Source(services.instances.epts, app_version or epts.ANY, endpoint)
        with about("query", "from"):
            found = await samples.last(services.session, source, metric, from_)
        if found is None:
            raise wrong("query", "metric", "The endpoint has no value of this metric", 404)
        return _point(found, metric)

    @get(
        "/endpoints/{endpoint:str}/time-series/downsampled",
        operation_id="downsampleTimeSeries",
        summary="Show averages of a metric by period",
        description="Numbers, and booleans as 0 and 1; other values do not count.",
        response_description="The periods that have values.",
        responses=responses(),
    )
    async def downsample_time_series(
        self,
        services: NamedDependency[Services],
        endpoint: Endpoint,
        metric: Metric,
        from_: From,
        period: Annotated[
            int,
            QueryParameter(
                ge=1,
                le=TIME_MAX,
                description="Length of a period in milliseconds. The answer has a longer one if there were more than "
                "10,000 periods.",
            ),
        ],
        to: To = TIME_MAX,
        app_version: AnyAppVersion = None,
    ) -> Periods:
        """Show averages of a metric."""
        end = min(to, now_ms())
        period = max(period, math.ceil((end - from_ + 1) / PERIODS_MAX))
        source = samples.Source(services.instances.epts, app_version or epts.ANY, endpoint)
        with about("query", "from"):
            found = await samples.downsampled(services.session, source, metric, from_, end, period)
        return Periods(period, [Period(*each) for each in found])


async def _page(
    services: Services,
    endpoint: str,
    app_version: str | None,
    metric: str | None,
    begin: int,
    end: int,
    limit: int,
    start: str | None,
) -> tuple[list[samples.Sample], str | None]:
    """Return a page of samples, only those that have the metric if one is given, and the `start` of the next."""
    position = None if start is None else samples.Position(*map(int, start.split("-")))
    if position is not None and position.sequence > SEQUENCE_MAX:
        raise wrong("query", "start", "Expected the next of the page before")
    source = samples.Source(services.instances.epts, app_version or epts.ANY, endpoint)
    found: list[samples.Sample] = []
    with about("query", "from"):
        between = samples.between(
            services.session, source, begin, end, position, batches_max=samples.BATCHES_MAX
        )
        async with aclosing(between) as stored:
            async for each in stored:
                if metric is not None and each.metric(metric) is None:
                    continue
                if len(found) == limit:
                    return found, f"{each.position.sequence}-{each.position.offset}"
                found.append(each)
    return found, None


def _point(sample: samples.Sample, metric: str) -> Point:
    value = sample.metric(metric)
    assert value is not None
    return Point(sample.timestamp, msgspec.Raw(value))
