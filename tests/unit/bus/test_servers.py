"""The servers, credentials and names that the connections to NATS use, read when they are used."""

import asyncio
from pathlib import Path

import pytest
from kaa_gateway.bus.connector import Credentials
from kaa_gateway.errors import BusError

from tests.support.fake_nats import FakeNats
from tests.support.links import connecting, up, user_key, write_creds
from tests.support.nats import HOST


async def test_servers_of_the_cluster_are_used_when_the_seed_is_gone() -> None:
    async with FakeNats() as seed, FakeNats() as other, connecting(seed.url) as (link, _):
        connection = await seed.admitted(connect_urls=["not an address", f"{HOST}:{other.port}"])
        await up(link)
        seed._server.close()
        connection.close()
        await other.admitted()
        await up(link)


async def test_a_server_in_lame_duck_mode_is_left_before_it_ends() -> None:
    async with FakeNats() as seed, FakeNats() as other, connecting(seed.url, other.url) as (link, connector):
        connection = await seed.admitted()
        await up(link)
        await connection.send_info(ldm=True)
        await other.admitted()
        await up(link)
        assert "lame duck" in connector.last_error
        await connection.closed()


async def test_credentials_are_read_for_each_connection(tmp_path: Path) -> None:
    path = write_creds(tmp_path / "user.creds", "first", user_key()[0])
    async with (
        FakeNats() as server,
        connecting(server.url, credentials=Credentials(path)) as (link, connector),
    ):
        connection = await server.admitted(nonce="n")
        assert connection.connect["jwt"] == "first"
        await up(link)
        path.write_text("half")
        connection.close()
        while "must hold a user JWT" not in connector.last_error:
            await (await server.accept()).send_info(nonce="n")
            await asyncio.sleep(0.1)
        write_creds(path, "second", user_key()[0])
        for _ in range(20):
            connection = await server.accept()
            await connection.send_info(nonce="n")
            if '"second"' in await connection.line():
                return
    pytest.fail("the new credentials were never used")


def test_a_file_that_is_no_credentials_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BusError, match="cannot be read"):
        Credentials(tmp_path / "none.creds")
