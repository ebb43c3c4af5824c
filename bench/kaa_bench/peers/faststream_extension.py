"""An extension on FastStream's NATS broker and fastavro.

`python -m kaa_bench.peers.faststream_extension NATS_URL EXTENSION KIND [--durable]` starts it. KIND is one of
plain_services.py. With `--durable` it takes its requests from the gateway's stream.
"""

import asyncio
import sys
from typing import Any

import uvloop
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from kaa_gateway.bus import subjects

from kaa_bench.peers.nats_extension import (
    FETCH_MESSAGES,
    PENDING_BYTES,
    PENDING_MESSAGES,
    consumer_config,
)
from kaa_bench.peers.plain_services import SIDE_BY_SIDE, Handler, answer_to, fields_of, handler_of

WORKERS = 256
"""Messages that are handled at a time, as many as with the SDK."""


async def main(nats_url: str, extension: str, kind: Any, durable: str = "") -> None:
    """Serve until the process ends."""

    broker = NatsBroker(
        nats_url, logger=None, apply_types=False, decoder=undecoded_stored if durable else undecoded
    )
    client = await broker.connect()
    handler = await handler_of(kind, client.jetstream())
    subject = subjects.service(extension, "esp", subjects.CLIENT_DATA)
    if durable:
        serve_stream(broker, subject, extension, handler)
    else:

        @broker.subscriber(
            subject,
            queue=extension,
            pending_msgs_limit=PENDING_MESSAGES,
            pending_bytes_limit=PENDING_BYTES,
            max_workers=WORKERS if kind in SIDE_BY_SIDE else 1,
        )
        async def answer(datum: bytes) -> bytes:
            # FastStream publishes the result on the reply subject.
            request = fields_of(datum)
            return answer_to(request, await handler(request), extension)

    await broker.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


async def undecoded(message: NatsMessage) -> bytes:
    """Return the body of a message."""
    body: bytes = message.body
    return body


async def undecoded_stored(message: NatsMessage) -> tuple[bytes, str]:
    """Return the body of a message of a stream, and the subject of its answer."""
    return message.body, message.headers.get(subjects.REPLY_TO_HEADER, "")


def serve_stream(broker: NatsBroker, subject: str, extension: str, handler: Handler) -> None:
    """Answer the requests of a stream, which FastStream acknowledges when the function returns."""
    name = subjects.stream(extension)

    @broker.subscriber(
        subject,
        stream=JStream(name, declare=False),
        durable=name,
        config=consumer_config(extension),
        pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=1.0),
    )
    async def answer(stored: tuple[bytes, str]) -> None:
        datum, reply = stored
        request = fields_of(datum)
        await broker.publish(answer_to(request, await handler(request), extension), reply)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
