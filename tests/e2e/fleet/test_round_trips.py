"""A CONNECT asks the other workers once, or not at all: what a worker writes to NATS is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Disconnect
from kaa_gateway.config.keys import IdentitySettings
from kaa_gateway.config.keys.identity import Clients, StaticIdentity
from kaa_gateway.fleet import messages
from kaa_gateway.identity import passwords

from tests.support.fleet import Fleet, fleet
from tests.support.mqtt import mqtt_peer
from tests.support.nats import HOST, NatsServer

SESSIONS = "kaa.v1.service.kpc.session."
PIECE = 65_536


class Line:
    """Passes the bytes of NATS clients on to a server, and keeps what they write."""

    def __init__(self) -> None:
        self.written = b""

    def claims(self) -> int:
        """Return how many requests have asked for sessions: publications with a subject for the answer.

        Workers greet each other at all times.
        """
        heads = [line.split() for line in self.written.decode(errors="replace").split("\r\n")]
        return sum(
            len(head) == 4
            and head[0] == "PUB"
            and head[1].startswith(SESSIONS)
            and head[1] != SESSIONS + messages.HELLO
            for head in heads
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool) -> None:
        while data := await reader.read(PIECE):
            if keep:
                self.written += data
            writer.write(data)
        writer.close()

    @asynccontextmanager
    async def to(self, nats: NatsServer) -> AsyncIterator[str]:
        """Yield the URL."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs, ours = await asyncio.open_connection(HOST, nats.port)
            await asyncio.gather(self._pass(reader, ours, keep=True), self._pass(theirs, writer, keep=False))

        server = await asyncio.start_server(serve, HOST, 0)
        yield f"nats://{HOST}:{server.sockets[0].getsockname()[1]}"
        server.close()


@asynccontextmanager
async def watched(nats: NatsServer, path: Path) -> AsyncIterator[tuple[Fleet, Line]]:
    """Two workers which clients may authenticate to, and what the second one writes to NATS."""
    path.write_text(json.dumps({"endpoints": {}, "clients": {"a": {"password": passwords.hashed(b"a")}}}))
    identity = IdentitySettings(static=StaticIdentity(file=path), clients=Clients(provider="static"))
    line = Line()
    async with (
        line.to(nats) as url,
        fleet([nats.url, url], mqtt={"client_authentication": "optional"}, identity=identity) as two,
    ):
        yield two, line


async def visit(port: int, fields: dict[str, Any]) -> None:
    async with mqtt_peer(port) as peer:
        assert (await peer.connect("c", **fields)).return_code == 0
        await peer.send(Disconnect())
        assert await peer.until_closed() == []


PERSISTENT = {"clean_session": False}
AUTHENTICATED = {"user_name": "a", "password": b"a"}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["new", "elsewhere"])
@pytest.mark.parametrize(
    ("fields", "most"),
    [(PERSISTENT, 1), (AUTHENTICATED, 1), (PERSISTENT | AUTHENTICATED, 1), ({}, 0)],
    ids=["persistent", "authenticated", "both", "anonymous and clean"],
)
async def test_a_connect_asks_once_at_most(
    shared_nats: NatsServer, tmp_path: Path, fields: dict[str, Any], most: int, elsewhere: bool
) -> None:
    async with watched(shared_nats, tmp_path / "identity.yml") as (two, line):
        if elsewhere:
            await visit(two.ports[0], fields)
        await visit(two.ports[1], fields)
        assert line.claims() == most
        # Its session is here now, if it is persistent.
        await visit(two.ports[1], fields)
        assert most <= line.claims() <= 2 * most
