"""How the link gets its connection: server list, credentials, TLS, back-off, and what is said when it cannot."""

import asyncio
import base64
import gc
import random
from pathlib import Path
from typing import Any

import pytest
from kaa_gateway.bus import connector as connector_module
from kaa_gateway.bus.connector import TlsOptions
from kaa_gateway.bus.credentials import Credentials
from kaa_gateway.bus.servers import Server
from kaa_gateway.errors import BusError
from structlog.testing import capture_logs

from tests.support.certificates import Authority
from tests.support.esp import until
from tests.support.fake_nats import FakeNats
from tests.support.links import connecting, up, user_seed, write_creds
from tests.support.nats import HOST, free_port


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("nats://a:1", Server("a", 1, tls=False)),
        ("a", Server("a", 4222, tls=False)),
        ("tls://a", Server("a", 4222, tls=True)),
        ("nats://us%40er:p%3Ass@a:1", Server("a", 1, tls=False, user="us@er", password="p:ss")),
        ("nats://t0ken@a", Server("a", 4222, tls=False, token="t0ken")),
    ],
)
def test_server_address(url: str, server: Server) -> None:
    assert Server.parse(url) == server
    for secret in ("p:ss", "p%3Ass", "t0ken"):
        assert secret not in str(server)


def test_an_address_of_something_else_is_refused() -> None:
    with pytest.raises(BusError, match="nats://host:port"):
        Server.parse("http://a")


# ---------------------------------------------------------------- credentials


async def test_creds_file_signs_the_nonce(tmp_path: Path) -> None:
    seed, public_key = user_seed()
    credentials = Credentials(write_creds(tmp_path / "kpc.creds", "a.user.jwt", seed))
    async with FakeNats() as server, connecting(server.url, credentials=credentials) as (link, _):
        for nonce in ("first-nonce", "second-nonce"):
            connection = await server.admitted(nonce=nonce, auth_required=True)
            signature = connection.connect["sig"]
            assert connection.connect["jwt"] == "a.user.jwt"
            # Raises an exception if it is wrong.
            public_key.verify(
                base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)), nonce.encode()
            )
            assert seed not in str(connection.connect)
            await up(link)
            connection.close()
            await until(lambda: not link.ready, "the loss")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot be read"),
        ("just text\n", "must hold a user JWT and a seed"),
        ("-----BEGIN A-----\njwt\n-----BEGIN B-----\nSUNOSEED\n", "holds no valid seed"),
    ],
)
def test_creds_file_that_is_none(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "kpc.creds"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BusError) as failure:
        Credentials(path)
    assert str(path) in failure.value.detail
    assert problem in failure.value.detail
    assert "SUNOSEED" not in failure.value.detail


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize("broken", ["ca_file", "cert_file"])
def test_tls_file_that_is_none(tmp_path: Path, broken: str) -> None:
    authority = Authority(tmp_path)
    path = tmp_path / "missing.pem"
    paths = {"ca_file": authority.file, "key_file": path, broken: path}
    files = TlsOptions(paths["ca_file"], paths.get("cert_file"), paths["key_file"])
    with pytest.raises(BusError) as failure:
        files.context()
    assert str(path) in failure.value.detail


# ---------------------------------------------------------------- the server list


async def test_a_server_that_refuses_does_not_spoil_the_next() -> None:
    """The end of a connection that was given up is heard while the next one is being made."""
    async with (
        FakeNats() as server,
        FakeNats() as other,
        connecting(server.url, other.url) as (link, connector),
    ):
        refusing = await server.accept()
        await refusing.send_info()
        await refusing.read_connect()
        await refusing.send(b"-ERR 'Authorization Violation'\r\n")
        await other.admitted()
        await up(link)
        await refusing.closed()
        assert link.connects == 1
        assert connector.last_error == "nats_refused: Authorization Violation"


async def test_goes_round_the_list_when_servers_go() -> None:
    async with FakeNats() as server, FakeNats() as other, connecting(server.url, other.url) as (link, _):
        for each in (server, other, server):
            connection = await each.admitted()
            await up(link)
            connection.reset()
            await until(lambda: not link.ready, "the loss")


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_module, "CONNECT_TIMEOUT", 0.2)
    async with (
        FakeNats() as silent,
        FakeNats() as other,
        connecting(silent.url, other.url) as (link, connector),
    ):
        connection = await silent.accept()
        await connection.closed()
        assert connector.last_error == "no answer in time"
        monkeypatch.setattr(connector_module, "CONNECT_TIMEOUT", 20)
        while not link.ready:
            # A slow machine may have missed the first chance.
            await other.admitted()
            await asyncio.sleep(0.05)


async def test_the_reason_of_a_server_that_refuses_with_its_info_is_not_lost() -> None:
    async with FakeNats() as server, connecting(server.url) as (link, connector):
        connection = await server.accept()
        await connection.send(b"INFO {}\r\n-ERR 'maximum connections exceeded'\r\n")
        connection.close()
        await until(lambda: "maximum connections" in connector.last_error, "the reason")
        await server.admitted()
        await up(link)


@pytest.mark.parametrize("info", [b"[]", b'{"max_payload":"x"}', b'{"nonce":7,"tls_required":"?"}', b"{"])
async def test_whatever_a_server_says_the_trying_goes_on(info: bytes) -> None:
    async with FakeNats() as server, connecting(server.url) as (link, connector):
        connection = await server.accept()
        await connection.send(b"INFO " + info + b"\r\nPONG\r\n")
        connection.close()
        await until(lambda: connector.last_error != "not connected yet", "the failure")
        await server.admitted()
        await up(link)


async def test_each_server_of_the_list_has_its_own_line_and_only_one() -> None:
    ports = [free_port(), free_port()]
    attempts = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.write(b"220 mail.example.org\r\n")
        writer.close()

    mail = await asyncio.start_server(serve, HOST, ports[1])
    with capture_logs() as logs:
        async with connecting(*(f"nats://{HOST}:{port}" for port in ports)):
            await until(lambda: attempts >= 4, "four rounds")
    mail.close()
    said = [entry["server"] for entry in logs if entry["event"].startswith("cannot connect")]
    assert sorted(said) == sorted(f"nats://{HOST}:{port}" for port in ports)


async def test_pauses_grow_while_a_server_ends_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the backlog is sent again: a gateway must not do that twenty times a second."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def recording(delay: float, *result: Any) -> Any:
        task = asyncio.current_task()
        if task is not None and task.get_name() == "nats-connector":
            pauses.append(delay)
            delay = 0
        return await sleep(delay, *result)

    monkeypatch.setattr(asyncio, "sleep", recording)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    async with FakeNats() as server, connecting(server.url) as (link, _):
        for _ in range(8):
            connection = await server.admitted()
            await up(link)
            connection.close()
            await until(lambda: not link.ready, "the loss")
        await server.accept()
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


async def test_what_fails_while_nobody_waits_for_it_is_no_complaint_of_asyncio() -> None:
    """A connection that is refused, and a stop between two attempts: the steps under way have failed unseen."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with connecting(f"nats://{HOST}:{free_port()}") as (link, connector):
        await until(lambda: connector.last_error.startswith("ConnectionRefusedError"), "the refusal")
    link.begin().expect_info()
    link.begin()  # lets go of the step
    gc.collect()
    assert complaints == []
