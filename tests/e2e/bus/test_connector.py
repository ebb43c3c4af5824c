"""How the link gets its connection to a real nats-server: credentials, TLS, and what is said when it cannot."""

from pathlib import Path

import pytest
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_gateway.bus.connector import TlsFiles
from kaa_gateway.config.keys import NatsTls
from structlog.testing import capture_logs

from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.links import connecting, up
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.worker import EXTENSION, running_worker

TOPIC = "kp1/app_v1/dcx/token/json"


def tls_config(authority: Authority, *, verify: bool = False, optional: bool = False) -> str:
    """Of a server that asks for a certificate (`verify`), or lets clients in without TLS too (`optional`)."""
    server = authority.issue("server", hosts=())
    return (
        f"allow_non_tls: {str(optional).lower()}\n"
        f'tls {{\n cert_file: "{server.cert_file}"\n key_file: "{server.key_file}"\n ca_file: "{authority.file}"\n'
        f" verify: {str(verify).lower()}\n}}\n"
    )


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
    with NatsServer(config=tls_config(authority, optional=True)) as server:
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
    with NatsServer(config=tls_config(authority)) as server:
        async with connecting(server.url, tls=TlsFiles(ca_file=authority.file)) as (link, _):
            await up(link)


async def test_client_certificate(authority: Authority) -> None:
    with NatsServer(config=tls_config(authority, verify=True)) as server:
        async with connecting(server.url, tls=TlsFiles(ca_file=authority.file)) as (link, connector):
            await until(lambda: connector.last_error != "not connected yet", "a refusal")
            assert not link.ready
        gateway = authority.issue("gateway")
        async with connecting(
            server.url, tls=TlsFiles(authority.file, gateway.cert_file, gateway.key_file)
        ) as (link, _):
            await up(link)


async def test_a_server_of_another_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    with NatsServer(config=tls_config(authority)) as server:
        with capture_logs() as logs:
            async with connecting(server.url, tls=TlsFiles(ca_file=other.file)) as (link, connector):
                await until(lambda: server.log.count("TLS handshake error") >= 3, "three attempts")
                assert not link.ready
                assert "CERTIFICATE_VERIFY_FAILED" in connector.last_error
        assert len([entry for entry in logs if entry["log_level"] == "error"]) == 1


async def test_a_server_of_another_name_is_refused(authority: Authority) -> None:
    with NatsServer(config=tls_config(authority)) as server:
        url = f"tls://localhost:{server.port}"
        async with connecting(url, tls=TlsFiles(ca_file=authority.file)) as (link, connector):
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
