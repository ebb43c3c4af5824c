"""Reads all stored messages of a JetStream stream, for the keys of a bucket and the samples of endpoints.

nats-py's own `KeyValue.watch` reports an empty bucket if the messages arrive before their count does, and leaves a
consumer behind each time.
"""

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

FETCH_MESSAGES = 256
FETCH_TIMEOUT_S = 1.0
"""After this time without a message we ask the server how many remain: some may have been removed."""
INACTIVE_S = 60.0
"""Seconds until the server removes the consumer of a dead reader."""


async def stored(
    jetstream: JetStreamContext,
    stream: str,
    subject: str,
    policy: api.DeliverPolicy,
    since: datetime | None = None,
    start: int | None = None,
) -> AsyncGenerator[Msg, None]:
    """Yield the messages that a stream has on a subject now, in order.

    `since` and `start`, a sequence, are for the policies that need them.
    """
    config = api.ConsumerConfig(
        filter_subject=subject,
        deliver_policy=policy,
        opt_start_time=since,
        opt_start_seq=start,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=INACTIVE_S,
    )
    consumer = await jetstream.add_consumer(stream, config)
    reader = await jetstream.pull_subscribe_bind(consumer.name, stream)
    try:
        remaining = consumer.num_pending or 0
        while remaining:
            try:
                messages = await reader.fetch(min(remaining, FETCH_MESSAGES), FETCH_TIMEOUT_S)
            except nats.errors.TimeoutError:
                remaining = (await reader.consumer_info()).num_pending or 0
                continue
            for message in messages:
                remaining = message.metadata.num_pending
                yield message
    finally:
        with suppress(nats.errors.Error):
            await reader.unsubscribe()
            await jetstream.delete_consumer(stream, consumer.name)
