"""The routes of data samples and metrics, which are fields of samples."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from kaa_ext.operations import samples
from kaa_ext.rest import queries
from kaa_ext.rest.parameters import PREFIX
from kaa_ext.rest.problems import responses, wrong
from kaa_ext.rest.services import Services

Metric = Annotated[
    str,
    QueryParameter(
        min_length=1, max_length=256, description="Name of the metric: a field of samples that are objects."
    ),
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


class SampleController(Controller):
    """The routes of samples and time series."""

    path = PREFIX
    tags = ("time series",)
    dependencies = queries.DEPENDENCIES

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
        source: NamedDependency[samples.Source],
        page: NamedDependency[queries.Page],
    ) -> SamplePage:
        """Show samples."""
        found, following = await queries.find_page(services, source, page, lambda sample: sample.content)
        shown = [
            Sample(sample.timestamp, sample.app_version_name, msgspec.Raw(content))
            for sample, content in found
        ]
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
        source: NamedDependency[samples.Source],
        metric: Metric,
        page: NamedDependency[queries.Page],
    ) -> PointPage:
        """Show the values of a metric."""
        found, following = await queries.find_page(services, source, page, _metric(metric))
        return PointPage([_point(*each) for each in found], following)

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
        source: NamedDependency[samples.Source],
        metric: Metric,
        from_: queries.From = 0,
    ) -> Point:
        """Show the last value of a metric."""
        found = await queries.find_last(services, source, from_, _metric(metric))
        if found is None:
            raise wrong("query", "metric", "The endpoint has no value of this metric", 404)
        return _point(*found)

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
        source: NamedDependency[samples.Source],
        metric: Metric,
        period_range: NamedDependency[queries.PeriodRange],
    ) -> queries.Periods:
        """Show averages of a metric."""
        return await queries.find_periods(
            services, source, period_range, lambda sample: samples.number_of(sample.metric(metric))
        )


def _point(sample: samples.Sample, value: bytes) -> Point:
    return Point(sample.timestamp, msgspec.Raw(value))


def _metric(name: str) -> Callable[[samples.Sample], bytes | None]:
    return lambda sample: sample.metric(name)
