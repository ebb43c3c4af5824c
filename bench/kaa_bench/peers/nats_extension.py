"""An extension on nats-py and fastavro, without an SDK.

`python -m kaa_bench.peers.nats_extension NATS_URL EXTENSION KIND [--durable]` starts it. KIND is one of
plain_services.py. With `--durable` it takes its requests from the gateway's stream.
"""

import asyncio
import sys
from typing import Any

import nats
import nats.errors
import uvloop
from kaa_gateway.bus import subjects
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from kaa_bench.peers.plain_services import Handler, answer_to, fields_of, handler_of

PENDING_MESSAGES = 1 << 20
"""Messages that wait for the callback; nats-py drops further ones."""
PENDING_BYTES = 1 << 30
FETCH_MESSAGES = 512
ACK_PENDING_MAX = 4096


async def main(nats_url: str, extension: str, kind: Any, durable: str = "") -> None:
    """Serve until the process ends."""
    client = await nats.connect(nats_url)
    handler = await handler_of(kind, client.jetstream())
    if durable:
        await serve_stream(client, extension, handler)
        return
    answers: asyncio.Queue[tuple[str, asyncio.Task[bytes]]] = asyncio.Queue()

    async def answer(datum: bytes) -> bytes:
        request = fields_of(datum)
        return answer_to(request, await handler(request), extension)

    async def at_once(message: Msg) -> None:
        await client.publish(message.reply, await answer(message.data))

    async def side_by_side(message: Msg) -> None:
        """Begin a request; handlers that wait for JetStream would hold up the next ones."""
        answers.put_nowait((message.reply, asyncio.create_task(answer(message.data))))

    async def publish_in_order() -> None:
        """Publish answers in the order of the requests, as the load expects them."""
        while True:
            reply, answered = await answers.get()
            await client.publish(reply, await answered)

    await client.subscribe(
        subjects.service(extension, "esp", subjects.CLIENT_DATA),
        extension,
        at_once if kind == "echo" else side_by_side,
        pending_msgs_limit=PENDING_MESSAGES,
        pending_bytes_limit=PENDING_BYTES,
    )
    await client.flush()
    print("ready", flush=True)
    await publish_in_order()


def consumer_config(extension: str) -> ConsumerConfig:
    """Return the consumer of the SDK, which all services of the row share."""
    name = subjects.stream(extension)
    return ConsumerConfig(
        name=name,
        durable_name=name,
        filter_subject=subjects.service(extension, "esp", subjects.CLIENT_DATA),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=30.0,
        max_ack_pending=ACK_PENDING_MAX,
    )


async def serve_stream(client: Client, extension: str, handler: Handler) -> None:
    """Answer the requests of a stream, and acknowledge each then."""
    name = subjects.stream(extension)
    await client.jsm().add_consumer(name, consumer_config(extension))
    consumer = await client.jetstream().pull_subscribe_bind(name, name)
    print("ready", flush=True)
    while True:
        try:
            messages = await consumer.fetch(FETCH_MESSAGES, timeout=1)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            request = fields_of(message.data)
            reply = (message.headers or {}).get(subjects.REPLY_TO_HEADER, "")
            await client.publish(reply, answer_to(request, await handler(request), extension))
            await message.ack()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
