"""The routes of the time series that epts finds in samples (14/TSTP)."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from kaa_ext.operations import samples, time_series
from kaa_ext.rest import queries
from kaa_ext.rest.parameters import PREFIX
from kaa_ext.rest.problems import responses, wrong
from kaa_ext.rest.services import Services
from kaa_ext.sdk.time_series import DataPoint

Series = Annotated[
    str,
    PathParameter(
        pattern=r"^(auto~)?[A-Za-z0-9_-]{1,128}(?!\n)$",
        description="Name of the time series, such as `weather` or `auto~temperature`.",
    ),
]
ValueName = Annotated[
    str,
    QueryParameter(
        min_length=1, max_length=256, description="Name of the value; `value` for auto-extraction."
    ),
]


class TimeSeries(msgspec.Struct, rename="camel"):
    """A time series: by name, the paths of its values in samples; `timestamp` is the path of their time."""

    name: str
    values: dict[str, str]
    timestamp: str | None


class TimeSeriesList(msgspec.Struct, rename="camel"):
    """The configured time series. With `autoExtraction`, there is also `auto~<field>` for each field with a number."""

    time_series: list[TimeSeries]
    auto_extraction: bool


class SeriesPoint(msgspec.Struct, rename="camel"):
    """Values at a time. `timestamp` is the time in the sample, `ingestionTimestamp` that of its arrival.

    Both are UNIX times in milliseconds, and the same if the time series has no time in the sample.
    """

    timestamp: int
    ingestion_timestamp: int
    app_version: str
    values: dict[str, Any]


class SeriesPointPage(msgspec.Struct):
    """A page of data points; `next` is the `start` of the next page, null after the last one."""

    points: list[SeriesPoint]
    next: str | None


class TimeSeriesController(Controller):
    """The routes of time series."""

    path = PREFIX
    tags = ("time series",)
    dependencies = queries.DEPENDENCIES

    @get(
        "/time-series",
        operation_id="listTimeSeries",
        summary="List the configured time series",
        response_description="The settings of epts.",
        responses=responses(),
    )
    async def list_time_series(self, services: NamedDependency[Services]) -> TimeSeriesList:
        """List time series."""
        found = await time_series.definitions(services.session, services.instances.epts)
        return TimeSeriesList(
            [TimeSeries(name, each.values, each.timestamp) for name, each in found.time_series.items()],
            found.auto_extraction,
        )

    @get(
        "/endpoints/{endpoint:str}/time-series/{series:str}/points",
        operation_id="queryDataPoints",
        summary="Show the data points of a time series",
        description="In the order of their arrival.",
        response_description="A page.",
        responses=responses(404),
    )
    async def query_data_points(
        self,
        services: NamedDependency[Services],
        source: NamedDependency[samples.Source],
        series: Series,
        page: NamedDependency[queries.Page],
    ) -> SeriesPointPage:
        """Show data points."""
        find = await _finder(services, series)
        found, following = await queries.find_page(services, source, page, find)
        return SeriesPointPage([_shown(*each) for each in found], following)

    @get(
        "/endpoints/{endpoint:str}/time-series/{series:str}/points/last",
        operation_id="getLastDataPoint",
        summary="Show the data point of a time series that has arrived last",
        response_description="The data point.",
        responses=responses(404),
    )
    async def get_last_data_point(
        self,
        services: NamedDependency[Services],
        source: NamedDependency[samples.Source],
        series: Series,
        from_: queries.From = 0,
    ) -> SeriesPoint:
        """Show the last data point."""
        find = await _finder(services, series)
        found = await queries.find_last(services, source, from_, find)
        if found is None:
            raise wrong("path", "series", "The endpoint has no data point of this time series", 404)
        return _shown(*found)

    @get(
        "/endpoints/{endpoint:str}/time-series/{series:str}/points/downsampled",
        operation_id="downsampleDataPoints",
        summary="Show averages of a value of a time series by period of arrival",
        description="Numbers, and booleans as 0 and 1; other values do not count.",
        response_description="The periods that have values.",
        responses=responses(404),
    )
    async def downsample_data_points(
        self,
        services: NamedDependency[Services],
        source: NamedDependency[samples.Source],
        series: Series,
        value: ValueName,
        period_range: NamedDependency[queries.PeriodRange],
    ) -> queries.Periods:
        """Show averages of a value."""
        find = await _finder(services, series)

        def number(sample: samples.Sample) -> float | None:
            point = find(sample)
            found = None if point is None else point.values.get(value)
            return float(found) if isinstance(found, int | float) else None

        return await queries.find_periods(services, source, period_range, number)


async def _finder(services: Services, series: str) -> Callable[[samples.Sample], DataPoint | None]:
    receiver = services.instances.epts
    find = await time_series.finder(services.session, receiver, series)
    if find is None:
        raise wrong("path", "series", f"{receiver} has no time series of this name", 404)
    return find


def _shown(sample: samples.Sample, point: DataPoint) -> SeriesPoint:
    return SeriesPoint(
        point.timestamp, point.ingestion_timestamp, sample.app_version_name, dict(point.values)
    )
