"""The extension of a fleet soak, in its own process: records and answers each message, and pushes its number, once."""

import asyncio
import os
import sys

from kaa_ext import Extension, Request
from kaa_ext.sdk.logs import configure
from kaa_ext.sdk.runner import run

from kaa_bench.fleet.ledger import Ledger
from kaa_bench.fleet.names import EXTENSION, INSTANCE, PUSH_PATHS, RECORD, client_of


def recording(file: str, nats_urls: list[str]) -> Extension:
    """Make an extension that appends a RECORD to `file` for each message that it has not seen before."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    extension = Extension(EXTENSION, nats_urls=nats_urls, gateway_instance=INSTANCE, durable=True)
    seen = Ledger()

    @extension.handler("/json")
    async def record(request: Request) -> bytes:
        assert request.endpoint_id is not None
        client, number = client_of(request.endpoint_id), int(request.payload)
        if seen.add(client, number):
            os.write(descriptor, RECORD.pack(client, number))
            path = PUSH_PATHS[number % len(PUSH_PATHS)]
            await extension.push(request.endpoint_id, f"/{path}", request.payload)
        return request.payload

    return extension


def main(file: str, *nats_urls: str) -> None:
    """Run until SIGTERM."""
    configure("error")
    asyncio.run(run(recording(file, list(nats_urls)), on_ready=lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
