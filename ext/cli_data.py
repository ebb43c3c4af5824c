"""`kaa-ext data`: the data samples that endpoints have sent, as epts keeps them."""

import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import nats.errors
from cyclopts import App, Parameter, validators
from nats.js import api
from nats.js.errors import NotFoundError

from ext import epts
from ext.cli_common import FAILED, Nats, check_instance, fail, run_command, servers
from ext.connection import DEFAULT_NATS_URL
from ext.session import CommandError, Session, session

app = App(name="data", help="Print the data samples that endpoints have sent.")

WAIT_S = 10.0
"""How long JetStream has for the next message that it has said is there."""
_DURATION = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Receiver = Annotated[
    str, Parameter(name="--receiver", help="Service instance that keeps the samples (epts).")
]
AnyVersion = Annotated[
    str, Parameter(name="--app-version", help="Only those of this application version; * for all.")
]
Metric = Annotated[
    str | None, Parameter(name="--metric", help="Only this field of samples that are objects.")
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
    """Print samples as they come in, until Ctrl-C: time, application version, endpoint, sample.

    Parameters
    ----------
    endpoint
        Endpoint ID; * for all.
    """
    urls = servers(nats)
    check_instance(receiver)

    async def work() -> int:
        async with session(urls) as connection:
            batches = _batches(
                connection, receiver, app_version, endpoint, api.DeliverPolicy.NEW, follow=True
            )
            async for batch in batches:
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
    """Print samples that are kept, the oldest first. Exit code 1 if there are none.

    Example: kaa-ext data query my-device --since 1h --metric temperature

    Parameters
    ----------
    endpoint
        Endpoint ID; * for all.
    last
        At most so many, the newest.
    since
        Not older than this: a number with s, m, h or d, as in 90s or 7d.
    """
    found = _DURATION.fullmatch(since) if since is not None else None
    if since is not None and found is None:
        fail(f"--since {since}: expected a number with s, m, h or d, as in 90s or 7d")
    after = time.time() - int(found[1]) * _SECONDS[found[2]] if found else None
    urls = servers(nats)
    check_instance(receiver)

    async def work() -> int:
        async with session(urls) as connection:
            lines: deque[str] = deque(maxlen=last)
            policy = api.DeliverPolicy.BY_START_TIME if after is not None else api.DeliverPolicy.ALL
            batches = _batches(connection, receiver, app_version, endpoint, policy, follow=False, after=after)
            async for batch in batches:
                lines.extend(_lines(batch, metric))
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return 0 if lines else FAILED

    return run_command(work())


async def _batches(
    connection: Session,
    receiver: str,
    app_version: str,
    endpoint: str,
    policy: api.DeliverPolicy,
    *,
    follow: bool,
    after: float | None = None,
) -> AsyncIterator[epts.Batch]:
    """What the stream has, in order; and what comes, if we `follow`."""
    decode = msgspec.json.Decoder(epts.Batch).decode
    subject = epts.stream_subject(receiver, app_version, endpoint)
    started = None if after is None else datetime.fromtimestamp(after, UTC)
    try:
        subscription = await connection.jetstream().subscribe(
            subject,
            stream=epts.stream_name(receiver),
            ordered_consumer=True,
            config=api.ConsumerConfig(deliver_policy=policy, opt_start_time=started),
        )
    except NotFoundError as error:
        raise CommandError(
            f"{receiver} has kept nothing on this NATS server; has `kaa-ext run {receiver}` been started?"
        ) from error
    info = await subscription.consumer_info()
    # Some may be on their way already.
    waiting = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
    while follow or waiting > 0:
        try:
            message = await subscription.next_msg(None if follow else WAIT_S)
        except nats.errors.TimeoutError as error:
            raise CommandError("JetStream did not send what it has") from error
        waiting = message.metadata.num_pending
        yield decode(message.data)


def _lines(batch: epts.Batch, metric: str | None) -> list[str]:
    """A line for each sample, or for each that has the metric."""
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
