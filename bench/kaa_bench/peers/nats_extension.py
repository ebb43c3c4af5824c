"""An echo extension on nats-py and fastavro, without an SDK.

`python -m kaa_bench.peers.nats_extension NATS_URL EXTENSION` starts it.
"""

import asyncio
import io
import sys
import time
from typing import Any

import fastavro
import nats
import uvloop
from kaa_gateway.bus import subjects
from nats.aio.msg import Msg

from kaa_bench.peers.schemas import CLIENT_DATA, EXTENSION_DATA

PENDING_MESSAGES = 1 << 20
"""Messages that wait for the callback; nats-py drops further ones."""
PENDING_BYTES = 1 << 30


def answer_to(datum: bytes, extension: str) -> bytes:
    """Return the ExtensionData that answers a ClientData with its own payload."""
    request: Any = fastavro.schemaless_reader(io.BytesIO(datum), CLIENT_DATA, None)
    answer = io.BytesIO()
    fastavro.schemaless_writer(
        answer,
        EXTENSION_DATA,
        {
            "correlationId": request["correlationId"],
            "timestamp": int(time.time() * 1000),
            "timeout": 0,
            "appVersionName": request["appVersionName"],
            "extensionInstanceName": extension,
            "endpointId": request["endpointId"],
            "resourcePath": request["resourcePath"],
            "requestId": request["requestId"],
            "payload": request["payload"],
            "statusCode": 200,
            "reasonPhrase": None,
        },
    )
    return answer.getvalue()


async def main(nats_url: str, extension: str) -> None:
    """Serve until the process ends."""
    connected = await nats.connect(nats_url)

    async def echo(message: Msg) -> None:
        await connected.publish(message.reply, answer_to(message.data, extension))

    await connected.subscribe(
        subjects.service(extension, "esp", subjects.CLIENT_DATA),
        extension,
        echo,
        pending_msgs_limit=PENDING_MESSAGES,
        pending_bytes_limit=PENDING_BYTES,
    )
    await connected.flush()
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
