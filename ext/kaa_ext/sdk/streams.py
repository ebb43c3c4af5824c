"""Reading a JetStream stream from one end to the other, for the keys of a bucket and the samples of endpoints.

nats-py's own `KeyValue.watch` takes a bucket for empty if its messages are faster than the answer that says how many
there are, and leaves a consumer behind each time.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

FETCH_MESSAGES = 256
FETCH_TIMEOUT_S = 1.0
"""After this long without a message we ask whether there is still one to come: it may have been removed."""
INACTIVE_S = 60.0
"""When the server forgets a reader that has died."""


async def stored(
    jetstream: JetStreamContext,
    stream: str,
    subject: str,
    policy: api.DeliverPolicy,
    since: datetime | None = None,
) -> AsyncIterator[Msg]:
    """What a stream has now on a subject, in order."""
    config = api.ConsumerConfig(
        filter_subject=subject,
        deliver_policy=policy,
        opt_start_time=since,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=INACTIVE_S,
    )
    consumer = await jetstream.add_consumer(stream, config)
    reader = await jetstream.pull_subscribe_bind(consumer.name, stream)
    try:
        waiting = consumer.num_pending or 0
        while waiting:
            try:
                messages = await reader.fetch(min(waiting, FETCH_MESSAGES), FETCH_TIMEOUT_S)
            except nats.errors.TimeoutError:
                waiting = (await reader.consumer_info()).num_pending or 0
                continue
            for message in messages:
                waiting = message.metadata.num_pending
                yield message
    finally:
        with suppress(nats.errors.Error):
            await reader.unsubscribe()
            await jetstream.delete_consumer(stream, consumer.name)
