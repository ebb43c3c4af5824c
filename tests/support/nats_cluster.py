"""Three nats-servers that form one cluster, each to be killed and started again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import msgspec
import nats
import nats.errors
from nats.aio.client import Client

from tests.support.nats import HOST, NatsServer, free_port

SERVERS = 3
TIMEOUT_S = 150.0
"""For elections, of which there may be several in a row."""
ELECTION_S = 10.0
"""For one: a server waits 4 to 9 seconds before it stands for it."""
REQUEST_TIMEOUT_S = 2.0
POLL_S = 0.1


class NatsCluster:
    """The servers, by their index; all of them run at first."""

    def __init__(self) -> None:
        ports = [free_port() for _ in range(SERVERS)]
        routes = ", ".join(f'"nats://{HOST}:{port}"' for port in ports)
        self._stack = ExitStack()
        cluster = f"name: test, routes: [{routes}]"
        self.servers = [
            NatsServer(
                jetstream=True,
                config=f'server_name: "{number}"\ncluster {{ {cluster}, listen: "{HOST}:{port}" }}',
            )
            for number, port in enumerate(ports)
        ]

    @property
    def urls(self) -> list[str]:
        """The URLs of the servers."""
        return [server.url for server in self.servers]

    async def lead(self, stream: str, server: NatsServer) -> None:
        """Make a server the leader of a stream, as soon as all replicas of the stream hold all of it.

        A server that has come back refuses to lead until it has caught up, although others call it current; each
        election interrupts it. So it gets more time after each refusal.
        """
        wanted = str(self.servers.index(server))
        loop = asyncio.get_running_loop()
        next_attempt, pause_s = loop.time(), ELECTION_S
        async with self._client() as client, asyncio.timeout(TIMEOUT_S):
            while True:
                cluster = (await _ask(client, f"STREAM.INFO.{stream}")).get("cluster", {})
                replicas = cluster.get("replicas", [])
                whole = len(replicas) == SERVERS - 1 and all(replica["current"] for replica in replicas)
                if whole and cluster.get("leader") == wanted:
                    return
                if whole and loop.time() >= next_attempt:
                    await _ask(client, f"STREAM.LEADER.STEPDOWN.{stream}", placement={"preferred": wanted})
                    next_attempt = loop.time() + pause_s
                    pause_s *= 2
                await asyncio.sleep(POLL_S)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        client = await nats.connect(self.urls, max_reconnect_attempts=-1)
        try:
            yield client
        finally:
            await client.close()

    def __enter__(self) -> Self:
        for server in self.servers:
            self._stack.enter_context(server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


async def _ask(client: Client, what: str, **body: Any) -> dict[str, Any]:
    """Return the answer of JetStream; an empty one if there is none now."""
    try:
        message = await client.request(f"$JS.API.{what}", msgspec.json.encode(body), REQUEST_TIMEOUT_S)
    except nats.errors.Error:
        return {}
    return msgspec.json.decode(message.data, type=dict[str, Any])
