"""The control connection's client: what nats-py alone does otherwise."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
from kaa_gateway.bus.control import Control
from kaa_gateway.bus.credentials import Credentials
from kaa_gateway.bus.nats_client import NatsClient

from tests.support.esp import until
from tests.support.fake_nats import FakeConnection, FakeNats
from tests.support.links import control_of, user_seed, write_creds
from tests.support.nats import HOST


async def up(control: Control) -> None:
    await until(lambda: control.connected, "the control connection")


async def answer_pings(connection: FakeConnection) -> None:
    """Answer each PING, and read all else."""
    while line := await connection.line():
        if line == "PING":
            await connection.send(b"PONG\r\n")


@asynccontextmanager
async def admitted(server: FakeNats, **info: object) -> AsyncIterator[FakeConnection]:
    """The next connection, of which each PING is answered."""
    connection = await server.admitted(**info)
    answering = asyncio.create_task(answer_pings(connection))
    try:
        yield connection
    finally:
        answering.cancel()


# ---------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    ("login", "sent"),
    [
        ("us%40er:p%3As%2Fw%25rd", {"user": "us@er", "pass": "p:s/w%rd"}),
        ("t%2Fk%40n", {"auth_token": "t/k@n"}),
        ("us%C3%A9r:", {"user": "usér", "pass": ""}),
    ],
)
async def test_names_are_percent_decoded(login: str, sent: dict[str, str]) -> None:
    async with FakeNats() as server, control_of(f"nats://{login}@{HOST}:{server.port}"):
        connection = await server.admitted(auth_required=True)
        assert {key: connection.connect[key] for key in sent} == sent


async def test_each_server_gets_its_own_credentials() -> None:
    async with (
        FakeNats() as one,
        FakeNats() as other,
        control_of(f"nats://a:one@{HOST}:{one.port}", f"nats://b:other@{HOST}:{other.port}"),
    ):
        accepting = [asyncio.create_task(each.admitted(auth_required=True)) for each in (one, other)]
        for _ in accepting:
            done, _ = await asyncio.wait(accepting, return_when=asyncio.FIRST_COMPLETED)
            connection = done.pop().result()
            accepting = [each for each in accepting if not each.done()]
            server = one if connection.connect["user"] == "a" else other
            assert connection.connect["pass"] == ("one" if server is one else "other")
            server._server.close()
            connection.close()


async def test_a_server_learned_from_info_gets_the_credentials_used_before() -> None:
    async with FakeNats() as seed, FakeNats() as other, control_of(f"nats://a%40b:p@{HOST}:{seed.port}"):
        connection = await seed.admitted(auth_required=True, connect_urls=[f"{HOST}:{other.port}"])
        seed._server.close()
        connection.close()
        learned = await other.admitted(auth_required=True)
        assert (learned.connect["user"], learned.connect["pass"]) == ("a@b", "p")


async def test_a_credentials_file_that_is_half_written_does_not_end_the_reconnecting(tmp_path: Path) -> None:
    path = write_creds(tmp_path / "user.creds", "first", user_seed()[0])
    whole = path.read_text()
    async with FakeNats() as server, control_of(server.url, credentials=Credentials(path)) as control:
        async with admitted(server, nonce="n", auth_required=True) as connection:
            assert connection.connect["jwt"] == "first"
            await up(control)
            for half in (
                "",
                whole[: len(whole) // 2],
                whole[: whole.rindex("SU") + 20],
                whole.replace("SU", "XX"),
            ):
                path.write_text(half)
                connection.close()
                attempt = await server.accept()
                await attempt.send_info(nonce="n", auth_required=True)
                assert not (await attempt.line()).startswith("CONNECT")
                assert not control.connected
        write_creds(path, "second", user_seed()[0])
        async with admitted(server, nonce="n", auth_required=True) as connection:
            assert connection.connect["jwt"] == "second"
            await up(control)
            assert control.last_error == ""


# ---------------------------------------------------------------- limits, and what is said


async def test_the_newest_info_says_how_large_an_event_may_be() -> None:
    async with FakeNats() as server, control_of(server.url) as control, admitted(server) as connection:
        await up(control)
        largest = control.event_size_max
        await connection.send_info(max_payload=4096)
        await until(lambda: control.event_size_max == 3072, "the limit of the account")
        control.publish_event("large", bytes(5000))
        await until(lambda: control.dropped == 1, "the drop")
        assert control.connected
        await connection.send_info(max_payload=8 * 1024 * 1024)
        await until(lambda: control.event_size_max == largest, "the limit of a new INFO")


async def test_the_limit_of_an_account_may_come_before_the_first_pong() -> None:
    async with FakeNats() as server, control_of(server.url) as control:
        for ending in (b"PONG\r\n", b"PING\r\nPONG\r\n"):
            connection = await server.accept()
            await connection.send_info(connect_urls=["a:1"])
            await connection.read_connect()
            await connection.send(b'INFO {"max_payload":4096,"connect_urls":["b:2"]}\r\n' + ending)
            answering = asyncio.create_task(answer_pings(connection))
            await up(control)
            assert control.event_size_max == 3072
            answering.cancel()
            connection.close()
            await until(lambda: not control.connected, "the loss")


@pytest.mark.parametrize("said", [b"", b"PO", b"INFO {\r\nPONG\r\n", b"-ERR 'no'\r\n", b"INFO {}\r\n"])
async def test_a_server_that_ends_within_the_handshake_is_tried_again(said: bytes) -> None:
    async with FakeNats() as server, control_of(server.url) as control:
        for _ in range(3):
            connection = await server.accept()
            await connection.send_info()
            await connection.read_connect()
            await connection.send(said)
            connection.close()
        for _ in range(4):
            connection = await server.accept()
            await connection.send_info()
            if (await connection.line()).startswith("CONNECT"):
                break
        answering = asyncio.create_task(answer_pings(connection))
        await up(control)
        answering.cancel()


async def test_an_account_with_a_small_limit_keeps_its_connection() -> None:
    async with FakeNats() as server:
        client = NatsClient()
        connecting = asyncio.create_task(client.connect(server.url))
        async with admitted(server) as connection:
            await connecting
            await connection.send_info(max_payload=1000)
            await until(lambda: client.max_payload == 1000, "the limit")
            with pytest.raises(nats.errors.MaxPayloadError):
                await client.publish("subject", bytes(1001))
            await client.publish("subject", bytes(1000))
            assert client.is_connected
            await client.close()


def test_a_context_that_cannot_be_made_is_a_failure_of_nats() -> None:
    def broken() -> ssl.SSLContext:
        raise ValueError("no such file")

    with pytest.raises(nats.errors.Error, match="no such file"):
        _ = NatsClient(broken).ssl_context
