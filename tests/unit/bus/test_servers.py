"""The servers, credentials and names that the connections to NATS use, read when they are used."""

import asyncio
from pathlib import Path

import pytest
from kaa_gateway.bus.credentials import Credentials
from kaa_gateway.bus.servers import Server, ServerList
from kaa_gateway.errors import BusError

from tests.support.esp import until
from tests.support.fake_nats import FakeNats
from tests.support.links import connecting, control_of, up, user_seed, write_creds
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
    path = write_creds(tmp_path / "user.creds", "first", user_seed()[0])
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
        write_creds(path, "second", user_seed()[0])
        for _ in range(20):
            connection = await server.accept()
            await connection.send_info(nonce="n")
            if '"second"' in await connection.line():
                return
    pytest.fail("the new credentials were never used")


def test_a_file_that_is_no_credentials_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BusError, match="cannot be read"):
        Credentials(tmp_path / "none.creds")


async def test_a_discovered_address_is_verified_by_the_name_of_the_server_that_told_it() -> None:
    async with FakeNats() as seed, connecting(f"nats://localhost:{seed.port}") as (link, connector):
        connection = await seed.admitted(connect_urls=["192.0.2.1:4222", "other.example:4223"])
        await up(link)
        connection.close()
        await until(lambda: connector._servers.discovered != [], "the servers")
        assert {(each.host, each.tls_name) for each in connector._servers.discovered} == {
            ("192.0.2.1", "localhost"),
            ("other.example", None),
        }


async def test_the_control_connection_leaves_a_server_in_lame_duck_mode_and_uses_servers_of_the_cluster() -> (
    None
):
    async with FakeNats() as seed, FakeNats() as other, control_of(seed.url) as control:
        connection = await seed.admitted(connect_urls=[f"{HOST}:{other.port}"])
        await until(lambda: control.connected, "the control connection")
        seed._server.close()
        await connection.send_info(ldm=True)
        await other.admitted()
        await until(lambda: control.connected, "the other server")
        await connection.closed()


@pytest.mark.parametrize(
    "url",
    [
        "nats://a:1",
        "tls://a:4222",
        "nats://us%40er:p%3As%2Fw@a:1",
        "nats://user:@a:1",
        "nats://t0%2Fken@a:1",
        "tls://user:p@[::1]:5",
    ],
)
def test_a_server_has_the_url_that_it_was_made_of(url: str) -> None:
    assert Server.parse(url).url == url


def test_servers_learned_from_info_follow_those_of_the_list() -> None:
    servers = ServerList(("nats://a:p@seed:1", "nats://b:q@second:2"))
    told_by = next(each for each in servers.all() if each.host == "seed")
    servers.discover(
        told_by, ["seed:1", "third:3", "third:3", "[::1]:4", 5, "", None, "a b:x", *("h:6",) * 300]
    )
    assert {str(each) for each in servers.all()[:2]} == {"nats://seed:1", "nats://second:2"}
    assert {(str(each), each.user, each.certificate_name) for each in servers.discovered} == {
        ("nats://third:3", "a", "third"),
        ("nats://[::1]:4", "a", "seed"),
        ("nats://h:6", "a", "h"),
    }
    servers.discover(told_by, "nonsense")
    assert len(servers.discovered) == 3, "an INFO without servers says nothing about them"
    servers.discover(told_by, [])
    assert servers.discovered == []
