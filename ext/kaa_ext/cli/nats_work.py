"""Runs the work of a command on a NATS connection.

nats-py is imported when there is work: the help of a command needs none of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from kaa_ext.cli.common import check_domain, servers
from kaa_ext.cli.exits import FAILED, INTERRUPTED, fail

if TYPE_CHECKING:
    from kaa_ext.operations.session import Session


def run_with_nats(nats: str, domain: str | None, work: Callable[[Session], Awaitable[int]]) -> int:
    """Connect to the servers in the value of --nats, do the work and return its exit code. Print errors as one line.

    States are in the JetStream domain `domain`.
    """
    urls = servers(nats)
    check_domain(domain)
    import asyncio

    import uvloop

    import kaa_ext.cli.nats_without_websocket  # noqa: F401 - before anything imports nats-py
    from kaa_ext.operations.errors import Unavailable
    from kaa_ext.operations.session import session
    from kaa_ext.sdk.errors import ExtensionError, StateUnavailable

    async def run() -> int:
        async with session(urls, domain) as connection:
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
