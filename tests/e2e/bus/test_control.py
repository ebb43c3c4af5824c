"""The control connection to a real nats-server: names, TLS, and what is said when it cannot come up."""

from pathlib import Path

import pytest
from kaa_gateway.bus.connector import TlsOptions
from kaa_gateway.bus.control import Control
from structlog.testing import capture_logs

from tests.support.certificates import Authority, nats_tls_config
from tests.support.esp import until
from tests.support.fake_nats import FakeNats
from tests.support.links import control_of
from tests.support.nats import HOST, NatsServer

ENCODED = "nats://us%40er:p%3As%2Fs@{}:{}"
AUTHORIZATION = 'authorization { user: "us@er", password: "p:s/s" }'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


async def up(control: Control) -> None:
    await until(lambda: control.connected, "the control connection")


async def test_the_control_connection_takes_percent_encoded_names() -> None:
    with NatsServer(config=AUTHORIZATION) as server:
        async with control_of(ENCODED.format(HOST, server.port)) as control:
            await up(control)
            assert control.last_error == ""


async def test_a_control_connection_that_cannot_come_up_is_logged_once() -> None:
    with NatsServer(config=AUTHORIZATION) as server, capture_logs() as logs:
        async with control_of(f"nats://me:wr0ng@{HOST}:{server.port}") as control:
            await until(lambda: control.last_error != "", "the failure")
            await until(lambda: server.log.count("authentication error") >= 2, "two attempts")
            assert not control.connected
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert len({entry["error"] for entry in errors}) == len(errors) >= 1


async def test_tls_before_info(authority: Authority) -> None:
    options = TlsOptions(authority.file, handshake_first=True)
    with NatsServer(config=nats_tls_config(authority, first=True), greets=False) as server:
        for scheme in ("nats", "tls"):
            async with control_of(f"{scheme}://{HOST}:{server.port}", tls=options) as control:
                await up(control)


async def test_tls_because_the_url_says_so(authority: Authority) -> None:
    with NatsServer(config=nats_tls_config(authority, optional=True)) as server:
        async with control_of(f"tls://{HOST}:{server.port}", tls=TlsOptions(authority.file)) as control:
            await up(control)
            assert control._client._transport is not None
            cipher = control._client._transport._io_writer.get_extra_info("cipher")  # type: ignore[attr-defined]
            assert cipher is not None


async def test_never_in_plain_text_instead(nats_server: NatsServer) -> None:
    async with control_of(f"tls://user:secret@{HOST}:{nats_server.port}") as control:
        await until(lambda: control.last_error != "", "a refusal")
        assert not control.connected
    async with FakeNats() as server, control_of(f"tls://user:secret@{HOST}:{server.port}"):
        connection = await server.accept()
        await connection.send_info()
        assert (await connection.read(1)) == b"\x16", "a TLS handshake, no CONNECT"


async def test_a_renewed_client_certificate_is_used_for_the_next_connection(
    tmp_path: Path, authority: Authority
) -> None:
    stranger = Authority(tmp_path, "stranger")
    certificate, key, _ = authority.issue("gateway")
    good = certificate.read_bytes(), key.read_bytes()
    bad = tuple(path.read_bytes() for path in stranger.issue("other-gateway")[:2])
    options = TlsOptions(authority.file, certificate, key)
    with NatsServer(config=nats_tls_config(authority, verify=True)) as server:
        async with control_of(server.url, tls=options) as control:
            await up(control)
            for broken in (bad, (b"", b"")):
                certificate.write_bytes(broken[0])
                key.write_bytes(broken[1])
                server.restart()
                await until(lambda: control.last_error != "" and not control.connected, "a refusal")
                certificate.write_bytes(good[0])
                key.write_bytes(good[1])
                await up(control)


async def test_each_kind_of_failure_is_said_once_and_again_after_a_connection() -> None:
    wrong, right = (f'authorization {{ user: "me", password: "{each}" }}' for each in ("other", "p"))
    with NatsServer(config=wrong) as server, capture_logs() as logs:
        # One server refuses, the other is not there: their failures alternate.
        async with control_of(f"nats://me:p@{HOST}:{server.port}", f"nats://me:p@{HOST}:1") as control:
            await until(lambda: server.log.count("authentication error") >= 3, "three attempts")
            said = [entry["error"] for entry in logs if entry["log_level"] == "error"]
            assert len(said) == len(set(said)) <= 3
            assert any("uthorization" in sentence for sentence in said)
            server.reload(right)
            await up(control)
            server.reload(wrong)
            server.restart()
            await until(
                lambda: len([entry for entry in logs if entry["log_level"] == "error"]) > len(said),
                "a new line",
            )
