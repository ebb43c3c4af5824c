"""The least that a bridge must do, on aiomqtt and nats-py: each message of a shared subscription is published to NATS.

`python -m kaa_bench.peers.mqtt_forwarder BROKER_PORT NATS_URL SUBJECT` starts it. It knows no devices, writes no
ClientData, and acknowledges to the broker before NATS has the message.
"""

import sys

import aiomqtt
import nats
import uvloop

from kaa_bench.compare.bridging import READY, SHARED_SUBSCRIPTION
from kaa_bench.processes import HOST


async def main(broker_port: int, nats_url: str, subject: str) -> None:
    """Forward until the process ends."""
    connected = await nats.connect(nats_url)
    async with aiomqtt.Client(
        HOST, broker_port, identifier="forwarder", protocol=aiomqtt.ProtocolVersion.V5
    ) as client:
        await client.subscribe(SHARED_SUBSCRIPTION, qos=1)
        print(READY, flush=True)
        async for message in client.messages:
            await connected.publish(subject, message.payload)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
