"""How the link gets its connection to a real nats-server: credentials, TLS, and what is said when it cannot."""

from pathlib import Path

import pytest
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_gateway.bus.connector import TlsOptions
from kaa_gateway.bus.credentials import Credentials
from kaa_gateway.config.keys import NatsTls
from structlog.testing import capture_logs

from tests.support.certificates import Authority, nats_tls_config
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.links import connecting, control_of, up
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.nats_jwt import Operator
from tests.support.worker import EXTENSION, running_worker

TOPIC = "kp1/app_v1/dcx/token/json"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


async def test_user_and_password() -> None:
    with NatsServer(config='authorization { user: "me", password: "p:ss/w" }') as server:
        async with connecting(f"nats://me:p%3Ass%2Fw@{HOST}:{server.port}") as (link, _):
            await up(link)


async def test_token() -> None:
    with NatsServer(config='authorization { token: "s3cret" }') as server:
        async with connecting(f"nats://s3cret@{HOST}:{server.port}") as (link, _):
            await up(link)


async def test_a_user_of_an_operator(tmp_path: Path) -> None:
    """Both connections sign the nonce with the seed of a credentials file."""
    operator = Operator()
    credentials = Credentials(operator.write_user(tmp_path / "user.creds"))
    with NatsServer(config=operator.server_config()) as server:
        async with (
            connecting(server.url, credentials=credentials) as (link, _),
            control_of(server.url, credentials=credentials) as control,
        ):
            await up(link)
            await until(lambda: control.connected, "the control connection")


async def test_a_user_of_another_operator(tmp_path: Path) -> None:
    credentials = Credentials(Operator().write_user(tmp_path / "user.creds"))
    with NatsServer(config=Operator().server_config()) as server:
        async with connecting(server.url, credentials=credentials) as (link, connector):
            await until(lambda: "Authorization Violation" in connector.last_error, "the refusal")
            assert not link.ready


async def test_refused_credentials_are_said_once_and_tried_until_they_are_right() -> None:
    with NatsServer(config='authorization { user: "me", password: "other" }') as server:
        with capture_logs() as logs:
            async with connecting(f"nats://me:wr0ng@{HOST}:{server.port}") as (link, connector):
                await until(lambda: server.log.count("authentication error") >= 3, "three attempts")
                assert not link.ready
                assert connector.last_error == "nats_refused: Authorization Violation"
                server.reload('authorization { user: "me", password: "wr0ng" }')
                await up(link)
        assert [entry["error"] for entry in logs if entry["log_level"] == "error"] == [
            "nats_refused: Authorization Violation"
        ]
        assert "wr0ng" not in str(logs)


async def test_messages_over_tls(authority: Authority) -> None:
    """With one of 900 KB among them, which takes many TLS records and more than one write."""
    payloads = [b"small", bytes(900_000), b"after"]
    with NatsServer(config=nats_tls_config(authority, optional=True)) as server:
        async with (
            running_worker(f"tls://{HOST}:{server.port}", tls=NatsTls(ca_file=authority.file)) as worker,
            Cluster(server.url, EXTENSION) as cluster,
            mqtt_client(worker.ports["mqtt"]) as device,
        ):
            for number, payload in enumerate(payloads, start=1):
                await device.send(Publish(TOPIC, payload, 1, number))
                assert await device.receive() == Puback(number)
            requests = await cluster.next_requests(len(payloads))
            assert [request.fields["payload"] for request in requests] == payloads
            await cluster.answer(requests[0], b"down")
            assert (await device.expect(Publish)).payload == b"down"


async def test_tls_because_the_server_requires_it(authority: Authority) -> None:
    with NatsServer(config=nats_tls_config(authority)) as server:
        async with connecting(server.url, tls=TlsOptions(ca_file=authority.file)) as (link, _):
            await up(link)


async def test_tls_before_info(authority: Authority) -> None:
    """As a server with `handshake_first` wants it; such a server says nothing to a client that waits."""
    options = TlsOptions(authority.file, handshake_first=True)
    with NatsServer(config=nats_tls_config(authority, first=True), greets=False) as server:
        for scheme in ("nats", "tls"):
            async with connecting(f"{scheme}://{HOST}:{server.port}", tls=options) as (link, _):
                await up(link)


async def test_messages_over_tls_that_comes_before_info(authority: Authority) -> None:
    tls = NatsTls(ca_file=authority.file, handshake_first=True)
    with NatsServer(config=nats_tls_config(authority, first=True), greets=False) as server:
        async with (
            running_worker(server.url, tls=tls) as worker,
            mqtt_client(worker.ports["mqtt"]) as device,
        ):
            await device.send(Publish(TOPIC, bytes(300_000), 1, 1))
            assert (await device.expect(Publish)).topic == f"{TOPIC}/error", "no extension runs"
            assert await device.expect(Puback) == Puback(1), "confirmed by NATS"
            server.restart()
            await device.send(Publish(TOPIC, b"after", 1, 2))
            assert (await device.expect(Publish)).topic == f"{TOPIC}/error"
            assert await device.expect(Puback) == Puback(2)


async def test_tls_before_info_towards_a_server_that_speaks_first(authority: Authority) -> None:
    with NatsServer(config=nats_tls_config(authority)) as server:
        options = TlsOptions(authority.file, handshake_first=True)
        async with connecting(server.url, tls=options) as (link, connector):
            await until(lambda: connector.last_error != "not connected yet", "a refusal")
            assert not link.ready


async def test_client_certificate(authority: Authority) -> None:
    with NatsServer(config=nats_tls_config(authority, verify=True)) as server:
        async with connecting(server.url, tls=TlsOptions(ca_file=authority.file)) as (link, connector):
            await until(lambda: connector.last_error != "not connected yet", "a refusal")
            assert not link.ready
        gateway = authority.issue("gateway")
        async with connecting(
            server.url, tls=TlsOptions(authority.file, gateway.cert_file, gateway.key_file)
        ) as (link, _):
            await up(link)


async def test_a_server_of_another_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    with NatsServer(config=nats_tls_config(authority)) as server:
        with capture_logs() as logs:
            async with connecting(server.url, tls=TlsOptions(ca_file=other.file)) as (link, connector):
                await until(lambda: server.log.count("TLS handshake error") >= 3, "three attempts")
                assert not link.ready
                assert "CERTIFICATE_VERIFY_FAILED" in connector.last_error
        assert len([entry for entry in logs if entry["log_level"] == "error"]) == 1


async def test_a_server_of_another_name_is_refused(authority: Authority) -> None:
    with NatsServer(config=nats_tls_config(authority)) as server:
        url = f"tls://localhost:{server.port}"
        async with connecting(url, tls=TlsOptions(ca_file=authority.file)) as (link, connector):
            await until(lambda: "CERTIFICATE_VERIFY_FAILED" in connector.last_error, "a refusal")
            assert not link.ready


async def test_tls_towards_a_server_that_has_none(nats_server: NatsServer) -> None:
    """Never in plain text instead."""
    async with connecting(f"tls://{HOST}:{nats_server.port}") as (link, connector):
        await until(lambda: connector.last_error != "not connected yet", "a refusal")
        assert not link.ready


async def test_a_dead_server_of_the_list_is_passed_over(nats_server: NatsServer) -> None:
    dead = f"nats://{HOST}:{free_port()}"
    async with connecting(dead, nats_server.url) as (link, _):
        await up(link)
