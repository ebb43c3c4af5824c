"""Runs the work of a command on a NATS connection."""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from kaa_ext.cli.common import servers
from kaa_ext.cli.exits import FAILED, INTERRUPTED, fail
from kaa_ext.operations.errors import Unavailable
from kaa_ext.operations.session import Session, session
from kaa_ext.sdk.errors import ExtensionError, StateUnavailable


def run_with_nats(nats: str, work: Callable[[Session], Awaitable[int]]) -> int:
    """Connect to the servers in the value of --nats, do the work and return its exit code. Print errors as one line."""
    urls = servers(nats)

    async def run() -> int:
        async with session(urls) as connection:
            return await work(connection)

    try:
        return uvloop.run(run())
    except Unavailable as error:
        fail(str(error), FAILED)
    except StateUnavailable as error:
        fail(f"JetStream did not do it: {error.reason}", FAILED)
    except ExtensionError as error:
        fail(error.reason_phrase)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
