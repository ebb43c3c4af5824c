"""How the link gets its connection: server list, credentials, TLS, back-off, and what is said when it cannot."""

import asyncio
import base64
import datetime
import gc
import ipaddress
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_gateway.bus import connector as connector_module
from kaa_gateway.bus.connector import Connector, Credentials, Server, TlsFiles
from kaa_gateway.bus.link import Link
from kaa_gateway.config.keys import NatsTls
from kaa_gateway.errors import BusError
from structlog.testing import capture_logs

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.fake_nats import FakeNats
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.worker import EXTENSION, running_worker

TOPIC = "kp1/app_v1/dcx/token/json"


@asynccontextmanager
async def connecting(
    *urls: str, tls: TlsFiles | None = None, credentials: Credentials | None = None
) -> AsyncIterator[tuple[Link, Connector]]:
    """A link that a connector tries to connect to one of `urls`, in this order."""
    link = Link(
        asyncio.get_running_loop(),
        ("subject",),
        1024 * 1024,
        10.0,
        lambda sentence: connector.on_lost(sentence),  # noqa: PLW0108 - there is no connector yet
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "shuffle", lambda servers: None)
        connector = Connector(link, urls, name="test", tls=tls or TlsFiles(), credentials=credentials)
    connector.start()
    try:
        yield link, connector
    finally:
        await connector.stop()


async def up(link: Link) -> None:
    await until(lambda: link.ready, "the connection")


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


def user_key() -> tuple[str, Any]:
    """A new user seed, as `nsc` writes it, and the key pair."""
    private = Ed25519PrivateKey.generate().private_bytes_raw()
    data = bytes([nkeys.PREFIX_BYTE_SEED | nkeys.PREFIX_BYTE_USER >> 5, (nkeys.PREFIX_BYTE_USER & 31) << 3])
    data += private
    seed = base64.b32encode(data + nkeys.crc16(data).to_bytes(2, "little")).rstrip(b"=")
    return seed.decode(), nkeys.from_seed(bytearray(seed))


def write_creds(path: Path, jwt: str, seed: str) -> Path:
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return path


async def test_creds_file_signs_the_nonce(tmp_path: Path) -> None:
    seed, pair = user_key()
    credentials = Credentials(write_creds(tmp_path / "kpc.creds", "a.user.jwt", seed))
    async with FakeNats() as server, connecting(server.url, credentials=credentials) as (link, _):
        for nonce in ("first-nonce", "second-nonce"):
            connection = await server.admitted(nonce=nonce, auth_required=True)
            signature = connection.connect["sig"]
            assert connection.connect["jwt"] == "a.user.jwt"
            assert pair.verify(
                nonce.encode(), base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
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


@dataclass
class Authority:
    """A certificate authority that exists for a test."""

    directory: Path
    name: str

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        certificate = self._certificate(self._subject, self._key.public_key(), authority=True)
        self.file = self._write("ca.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files of a peer on the loopback address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(subject, key.public_key(), authority=False)
        return (
            self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write(
                f"{name}.key",
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            ),
        )

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, data: bytes) -> Path:
        path = self.directory / f"{self.name}-{name}"
        path.write_bytes(data)
        return path


def tls_config(authority: Authority, *, verify: bool = False, optional: bool = False) -> str:
    """Of a server that asks for a certificate (`verify`), or lets clients in without TLS too (`optional`)."""
    certificate, key = authority.issue("server")
    return (
        f"allow_non_tls: {str(optional).lower()}\n"
        f'tls {{\n cert_file: "{certificate}"\n key_file: "{key}"\n ca_file: "{authority.file}"\n'
        f" verify: {str(verify).lower()}\n}}\n"
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


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
        certificate, key = authority.issue("gateway")
        async with connecting(server.url, tls=TlsFiles(authority.file, certificate, key)) as (link, _):
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


@pytest.mark.parametrize("broken", ["ca_file", "cert_file"])
def test_tls_file_that_is_none(tmp_path: Path, authority: Authority, broken: str) -> None:
    path = tmp_path / "missing.pem"
    paths = {"ca_file": authority.file, "key_file": path, broken: path}
    files = TlsFiles(paths["ca_file"], paths.get("cert_file"), paths["key_file"])
    with pytest.raises(BusError) as failure:
        files.context()
    assert str(path) in failure.value.detail


# ---------------------------------------------------------------- the server list


async def test_a_dead_server_of_the_list_is_passed_over(nats_server: NatsServer) -> None:
    dead = f"nats://{HOST}:{free_port()}"
    async with connecting(dead, nats_server.url) as (link, _):
        await up(link)


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
    link.expect_info()
    link.begin()  # lets go of the step
    gc.collect()
    assert complaints == []
