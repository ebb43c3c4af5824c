"""The data samples that epts keeps: as they arrive, stored ones, and time series of one metric.

A metric is a field of samples that are JSON objects. Times are UNIX times in milliseconds.
"""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import msgspec
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import NotFoundError

from kaa_ext.operations.errors import Unavailable
from kaa_ext.operations.session import Session
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.streams import stored
from kaa_ext.services import epts

T = TypeVar("T")

BATCHES_MAX = 50_000
"""Batches, which are the messages of devices, that one query reads."""
LATE_MS = 10_000
"""How much later than its arrival a batch may be stored."""

_decode = msgspec.json.Decoder(epts.Batch).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_number = msgspec.json.Decoder(float | bool).decode


class Position(NamedTuple):
    """A place among the stored samples: the sequence of a batch, and the offset of a sample in it."""

    sequence: int
    offset: int


class Sample(NamedTuple):
    """A data sample; `content` is the JSON of the device."""

    timestamp: int
    app_version_name: str
    endpoint_id: str
    content: bytes
    position: Position

    def metric(self, name: str) -> bytes | None:
        """Return the JSON value of a metric, or None."""
        if not self.content.startswith(b"{"):
            return None
        found = _fields(self.content).get(name)
        return None if found is None else bytes(found)


class Source(NamedTuple):
    """Whose samples are meant; `epts.ANY` stands for all versions or endpoints."""

    receiver: str
    app_version_name: str = epts.ANY
    endpoint_id: str = epts.ANY

    @property
    def subject(self) -> str:
        """The subject of the samples in the stream of the receiver."""
        return epts.stream_subject(self.receiver, self.app_version_name, self.endpoint_id)


class Bucket(NamedTuple):
    """The numbers in a period, which begins at `timestamp`."""

    timestamp: int
    points: int
    average: float
    minimum: float
    maximum: float


async def arriving(session: Session, source: Source) -> AsyncIterator[Sample]:
    """Yield the samples that are stored from now on, for ever."""
    with _known(source.receiver):
        subscription = await session.jetstream().subscribe(
            source.subject,
            stream=epts.stream_name(source.receiver),
            ordered_consumer=True,
            config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.NEW),
        )
    while True:
        for sample in _samples(await subscription.next_msg(None)):
            yield sample


async def between(
    session: Session,
    source: Source,
    begin: int | None = None,
    end: int | None = None,
    start: Position | None = None,
    *,
    batches_max: int | None = None,
) -> AsyncGenerator[Sample, None]:
    """Yield the stored samples from `begin` to `end`, the oldest first; those before the position `start` are left out.

    Raise ExtensionError 400 when more than `batches_max` batches would have to be read.
    """
    policy, since = api.DeliverPolicy.ALL, None
    if start is not None:
        policy = api.DeliverPolicy.BY_START_SEQUENCE
    elif begin is not None:
        policy = api.DeliverPolicy.BY_START_TIME
        since = datetime.fromtimestamp(begin / 1000, UTC)
    stream = epts.stream_name(source.receiver)
    sequence = None if start is None else max(start.sequence, 1)
    read = 0
    with _known(source.receiver):
        found = stored(session.jetstream(), stream, source.subject, policy, since, sequence)
        async with aclosing(found) as messages:
            async for message in messages:
                if end is not None and message.metadata.timestamp.timestamp() * 1000 > end + LATE_MS:
                    return
                read += 1
                if batches_max is not None and read > batches_max:
                    raise ExtensionError(
                        400, f"More than {batches_max} messages are in this time; choose a shorter one"
                    )
                for sample in _samples(message):
                    if (
                        (begin is None or sample.timestamp >= begin)
                        and (end is None or sample.timestamp <= end)
                        and (start is None or sample.position >= start)
                    ):
                        yield sample


async def are_there(session: Session, source: Source) -> bool:
    """Return whether the receiver has kept a sample of the source."""
    with _known(source.receiver):
        stream = epts.stream_name(source.receiver)
        try:
            await session.jetstream().get_last_msg(stream, source.subject)
        except NotFoundError:
            await session.jetstream().stream_info(stream)
            return False
        return True


async def last(
    session: Session, source: Source, find: Callable[[Sample], T | None], begin: int
) -> tuple[Sample, T] | None:
    """Return the last sample in which `find` finds something, and what it finds.

    It is looked for in the last message, then from `begin` on.
    """
    with _known(source.receiver):
        stream = epts.stream_name(source.receiver)
        try:
            message = await session.jetstream().get_last_msg(stream, source.subject)
        except NotFoundError:
            await session.jetstream().stream_info(stream)
            return None
    batch = _decode(message.data or b"")
    assert message.seq is not None
    found = None
    for sample in _of_batch(batch, message.seq):
        if (value := find(sample)) is not None:
            found = sample, value
    if found is not None:
        return found
    async with aclosing(between(session, source, begin, batches_max=BATCHES_MAX)) as samples:
        async for sample in samples:
            if (value := find(sample)) is not None:
                found = sample, value
    return found


async def downsampled(
    session: Session,
    source: Source,
    number: Callable[[Sample], float | None],
    begin: int,
    end: int,
    period_ms: int,
) -> list[Bucket]:
    """Return the numbers that `number` finds in samples, by period; periods without any are left out."""
    values: dict[int, list[float]] = {}
    async with aclosing(between(session, source, begin, end, batches_max=BATCHES_MAX)) as samples:
        async for sample in samples:
            found = number(sample)
            if found is not None:
                values.setdefault((sample.timestamp - begin) // period_ms, []).append(found)
    return [
        Bucket(begin + period * period_ms, len(each), math.fsum(each) / len(each), min(each), max(each))
        for period, each in sorted(values.items())
    ]


def number_of(value: bytes | None) -> float | None:
    """Return a JSON value as a number, None if it is no number or boolean."""
    if value is None:
        return None
    try:
        return float(_number(value))
    except msgspec.ValidationError:
        return None


def _samples(message: Msg) -> Iterator[Sample]:
    return _of_batch(_decode(message.data), message.metadata.sequence.stream)


def _of_batch(batch: epts.Batch, sequence: int) -> Iterator[Sample]:
    for index, content in enumerate(batch.samples):
        position = Position(sequence, index)
        yield Sample(batch.timestamp, batch.app_version_name, batch.endpoint_id, bytes(content), position)


@contextmanager
def _known(receiver: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise Unavailable(
            f"{receiver} has kept nothing on this NATS server; has `kaa-ext run {receiver}` been started?"
        ) from error
