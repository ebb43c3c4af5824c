"""An echo extension on FastStream's NATS broker and fastavro.

`python -m kaa_bench.peers.faststream_extension NATS_URL EXTENSION` starts it.
"""

import asyncio
import sys

import uvloop
from faststream.nats import NatsBroker, NatsMessage
from kaa_gateway.bus import subjects

from kaa_bench.peers.nats_extension import PENDING_BYTES, PENDING_MESSAGES, answer_to


async def main(nats_url: str, extension: str) -> None:
    """Serve until the process ends."""

    async def undecoded(message: NatsMessage) -> bytes:
        body: bytes = message.body
        return body

    broker = NatsBroker(nats_url, logger=None, apply_types=False, decoder=undecoded)

    @broker.subscriber(
        subjects.service(extension, "esp", subjects.CLIENT_DATA),
        queue=extension,
        pending_msgs_limit=PENDING_MESSAGES,
        pending_bytes_limit=PENDING_BYTES,
    )
    async def echo(datum: bytes) -> bytes:
        # FastStream publishes the result on the reply subject.
        return answer_to(datum, extension)

    await broker.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
