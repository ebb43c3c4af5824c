"""`kaa-ext data`: prints the data samples that epts keeps, and the time series in them."""

import sys
import time
from collections import deque
from typing import Annotated

from cyclopts import App, Parameter, validators
from kaa_gateway.bus.messages import now_ms

from kaa_ext.cli.common import Domain, Nats, check_instance, duration
from kaa_ext.cli.exits import FAILED, fail
from kaa_ext.cli.nats_work import run_with_nats
from kaa_ext.operations import samples, time_series
from kaa_ext.operations.session import Session
from kaa_ext.sdk import payloads
from kaa_ext.sdk.urls import DEFAULT_NATS_URL
from kaa_ext.services import epts

app = App(name="data", help="Print the data samples and time series of endpoints.")

Receiver = Annotated[str, Parameter(name="--receiver", help="Service instance that keeps the samples.")]
AnyVersion = Annotated[
    str, Parameter(name="--app-version", help="Application version of the samples; * for all.")
]
Metric = Annotated[
    str | None, Parameter(name="--metric", help="Print only this field, of samples that are objects.")
]


@app.command
def tail(
    endpoint: str = epts.ANY,
    *,
    metric: Metric = None,
    app_version: AnyVersion = epts.ANY,
    receiver: Receiver = "epts",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Print samples as they arrive, until Ctrl-C: time, application version, endpoint, sample.

    Parameters
    ----------
    endpoint
        Endpoint ID; * for all.
    """
    check_instance(receiver)

    async def work(connection: Session) -> int:
        source = samples.Source(receiver, app_version, endpoint)
        async for sample in samples.arriving(connection, source):
            if (line := _line(sample, metric)) is not None:
                print(line, flush=True)
        return 0

    return run_with_nats(nats, jetstream_domain, work)


@app.command
def query(
    endpoint: str = epts.ANY,
    *,
    last: Annotated[int, Parameter(validator=validators.Number(gt=0))] = 100,
    since: str | None = None,
    metric: Metric = None,
    app_version: AnyVersion = epts.ANY,
    receiver: Receiver = "epts",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Print stored samples, the oldest first. The exit code is 1 if there are none.

    Example: kaa-ext data query my-device --since 1h --metric temperature

    Parameters
    ----------
    endpoint
        Endpoint ID; * for all.
    last
        Number of samples to print; older ones are left out.
    since
        Greatest age of a sample: a number with s, m, h or d, such as 90s or 7d.
    """
    begin = _begin(since)
    check_instance(receiver)

    async def work(connection: Session) -> int:
        lines: deque[str] = deque(maxlen=last)
        source = samples.Source(receiver, app_version, endpoint)
        found = False
        async for sample in samples.between(connection, source, begin):
            found = True
            if (line := _line(sample, metric)) is not None:
                lines.append(line)
        if not lines:
            fail(await _nothing(connection, source, since, metric if found else None), FAILED)
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return 0

    return run_with_nats(nats, jetstream_domain, work)


@app.command
def points(
    endpoint: str = epts.ANY,
    *,
    series: str,
    last: Annotated[int, Parameter(validator=validators.Number(gt=0))] = 100,
    since: str | None = None,
    app_version: AnyVersion = epts.ANY,
    receiver: Receiver = "epts",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Print the data points of a time series, the oldest first. The exit code is 1 if there are none.

    Example: kaa-ext data points my-device --series auto~temperature --since 1h

    Parameters
    ----------
    endpoint
        Endpoint ID; * for all.
    series
        Name of a time series in the settings of epts, or auto~FIELD with auto-extraction.
    last
        Number of data points to print; older ones are left out.
    since
        Greatest age of a data point: a number with s, m, h or d, such as 90s or 7d.
    """
    begin = _begin(since)
    check_instance(receiver)

    async def work(connection: Session) -> int:
        find = await time_series.finder(connection, receiver, series)
        if find is None:
            fail(f"{receiver} has no time series {series}", FAILED)
        lines: deque[str] = deque(maxlen=last)
        source = samples.Source(receiver, app_version, endpoint)
        async for sample in samples.between(connection, source, begin):
            if (point := find(sample)) is not None:
                values = payloads.encode(point.values).decode()
                lines.append(f"{_time(point.timestamp)} {_of(sample)} {values}")
        if not lines:
            fail(f"no sample found has a data point of {series}", FAILED)
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return 0

    return run_with_nats(nats, jetstream_domain, work)


def _begin(since: str | None) -> int | None:
    """Return the UNIX time in milliseconds of the value of --since."""
    return None if since is None else now_ms() - int(duration("--since", since).total_seconds() * 1000)


async def _nothing(connection: Session, source: samples.Source, since: str | None, metric: str | None) -> str:
    """Say why a query has found nothing. There are samples, without the metric, if `metric` is given."""
    if metric is not None:
        return f"no sample found has the field {metric}"
    said = f"{source.receiver} has no sample"
    if source.endpoint_id != epts.ANY:
        said += f" of endpoint {source.endpoint_id}"
    if source.app_version_name != epts.ANY:
        said += f" with application version {source.app_version_name}"
    if since is not None and await samples.are_there(connection, source):
        said += f" of the last {since}; there are older ones"
    return said


def _line(sample: samples.Sample, metric: str | None) -> str | None:
    """Return the line of a sample; None if it does not have the metric."""
    value = sample.content if metric is None else sample.metric(metric)
    if value is None:
        return None
    return f"{_time(sample.timestamp)} {_of(sample)} {value.decode()}"


def _of(sample: samples.Sample) -> str:
    """Return whose sample it is."""
    return f"{sample.app_version_name} {sample.endpoint_id}"


def _time(timestamp: int) -> str:
    seconds, milliseconds = divmod(timestamp, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03}Z"
