"""The extension of a soak, in its own process: records each message, and answers it.

An answer says to which message of which device it belongs. The record is written to a file before the handler returns,
and so survives a SIGKILL of this process.
"""

import asyncio
import os
import struct
import sys
import time

from kaa_ext import Extension, Request
from kaa_ext.sdk.logs import configure
from kaa_ext.sdk.runner import run

RECORD = struct.Struct(">IIIId")
"""The numbers of the device, of its message and of its connection; this process; the time by CLOCK_MONOTONIC."""
ACK_WAIT_S = 5.0


def recording(file: str, nats_url: str, instance: str, gateway_instance: str, *, durable: bool) -> Extension:
    """Make an extension that appends a RECORD to `file` for each message."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    extension = Extension(
        instance,
        nats_urls=[nats_url],
        gateway_instance=gateway_instance,
        durable=durable,
        ack_wait_s=ACK_WAIT_S,
    )

    @extension.handler("/json")
    async def record(request: Request) -> bytes:
        assert request.endpoint_id is not None
        device = int(request.endpoint_id.removeprefix("soak-"))
        number, connection = map(int, request.payload.split())
        os.write(descriptor, RECORD.pack(device, number, connection, os.getpid(), time.monotonic()))
        return b"%s %d" % (request.endpoint_id.encode(), number)

    return extension


def main(file: str, nats_url: str, instance: str, gateway_instance: str, kind: str) -> None:
    """Run until SIGTERM."""
    configure("warning")
    extension = recording(file, nats_url, instance, gateway_instance, durable=kind == "durable")
    asyncio.run(run(extension, on_ready=lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
