"""`kaa-ext data`: prints the data samples that epts keeps."""

import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from cyclopts import App, Parameter, validators
from nats.js import api
from nats.js.errors import NotFoundError

from kaa_ext.cli.common import FAILED, Nats, check_instance, duration, run_command, servers
from kaa_ext.cli.session import CommandError, Session, session
from kaa_ext.sdk.streams import stored
from kaa_ext.sdk.urls import DEFAULT_NATS_URL
from kaa_ext.services import epts

app = App(name="data", help="Print the data samples of endpoints.")

_decode = msgspec.json.Decoder(epts.Batch).decode

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
) -> int:
    """Print samples as they arrive, until Ctrl-C: time, application version, endpoint, sample.

    Parameters
    ----------
    endpoint
        Endpoint ID; * for all.
    """
    urls = servers(nats)
    check_instance(receiver)

    async def work() -> int:
        async with session(urls) as connection:
            async for batch in _arriving(connection, receiver, app_version, endpoint):
                for line in _lines(batch, metric):
                    print(line, flush=True)
        return 0

    return run_command(work())


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
    after = None if since is None else datetime.now(UTC) - duration("--since", since)
    urls = servers(nats)
    check_instance(receiver)

    async def work() -> int:
        async with session(urls) as connection:
            lines: deque[str] = deque(maxlen=last)
            async for batch in _stored(connection, receiver, app_version, endpoint, after):
                lines.extend(_lines(batch, metric))
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return 0 if lines else FAILED

    return run_command(work())


async def _arriving(
    connection: Session, receiver: str, app_version: str, endpoint: str
) -> AsyncIterator[epts.Batch]:
    """Yield the batches that the stream receives from now on."""
    with _known(receiver):
        subscription = await connection.jetstream().subscribe(
            epts.stream_subject(receiver, app_version, endpoint),
            stream=epts.stream_name(receiver),
            ordered_consumer=True,
            config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.NEW),
        )
    while True:
        yield _decode((await subscription.next_msg(None)).data)


async def _stored(
    connection: Session, receiver: str, app_version: str, endpoint: str, since: datetime | None
) -> AsyncIterator[epts.Batch]:
    """Yield the batches that the stream has."""
    policy = api.DeliverPolicy.ALL if since is None else api.DeliverPolicy.BY_START_TIME
    subject = epts.stream_subject(receiver, app_version, endpoint)
    with _known(receiver):
        found = stored(connection.jetstream(), epts.stream_name(receiver), subject, policy, since)
        async for message in found:
            yield _decode(message.data)


@contextmanager
def _known(receiver: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise CommandError(
            f"{receiver} has kept nothing on this NATS server; has `kaa-ext run {receiver}` been started?"
        ) from error


def _lines(batch: epts.Batch, metric: str | None) -> list[str]:
    """Return a line for each sample, or for each that has the metric."""
    seconds, milliseconds = divmod(batch.timestamp, 1000)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03}Z"
    head = f"{when} {batch.app_version_name} {batch.endpoint_id}"
    texts = [bytes(sample).decode() for sample in batch.samples]
    if metric is not None:
        texts = [value for value in (_value(text, metric) for text in texts) if value is not None]
    return [f"{head} {text}" for text in texts]


def _value(sample: str, metric: str) -> str | None:
    if not sample.startswith("{"):
        return None
    value = msgspec.json.decode(sample, type=dict[str, msgspec.Raw]).get(metric)
    return None if value is None else bytes(value).decode()
