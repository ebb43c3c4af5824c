"""TLS with other people's clients: Mosquitto's and curl, with and without certificates; and every refusal."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from kaa_bench import mqtt_packets as mqtt
from kaa_ext import Extension, Request
from kaa_ext.services import echo

from tests.support.certificates import Issued
from tests.support.cluster import Cluster
from tests.support.encrypted import EncryptedGateway, Pki, run
from tests.support.esp import until
from tests.support.mqtt import MqttPeer
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]


@pytest.fixture(scope="module")
def encrypted(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    """MQTT that requires certificates, HTTP that takes them."""
    transports = {
        "mqtt": {"tls": pki.section("required", **{"handshake-timeout": 60, "handshakes": 8})},
        "http": {"tls": pki.section("optional")},
    }
    with EncryptedGateway(shared_nats.url, transports, limits={"output-buffer": "1MiB"}) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield extension


def context(pki: Pki, client: Issued | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=pki.authority.file)
    if client is not None:
        made.load_cert_chain(client.cert_file, client.key_file)
    return made


async def mosquitto_rr(
    gateway: EncryptedGateway, pki: Pki, token: str, *options: str
) -> tuple[int | None, str]:
    topic = f"kp1/app_v1/echo/{token}/hello/1"
    return await run(
        "mosquitto_rr", "-h", "localhost", "-p", str(gateway.mqtts_port), "--cafile", str(pki.authority.file),
        "-V", "311", "-q", "1", "-W", "20", "-t", topic, "-e", f"{topic}/status", "-m", "over TLS", *options,
    )  # fmt: skip


async def curl(gateway: EncryptedGateway, pki: Pki, token: str, *options: str) -> tuple[int | None, str]:
    return await run(
        "curl", "--silent", "--show-error", "--max-time", "20", "--cacert", str(pki.authority.file), *options,
        "--data", "over TLS", f"https://localhost:{gateway.https_port}/kp1/app_v1/echo/{token}/hello",
    )  # fmt: skip


def files(client: Issued) -> tuple[str, ...]:
    return "--cert", str(client.cert_file), "--key", str(client.key_file)


class TestMosquitto:
    async def test_with_a_certificate(
        self, encrypted: EncryptedGateway, pki: Pki, echo_extension: Extension, new_token: NewToken
    ) -> None:
        for version in ("tlsv1.2", "tlsv1.3"):
            arguments = (*files(pki.device), "--tls-version", version)
            assert await mosquitto_rr(encrypted, pki, new_token(), *arguments) == (0, "over TLS\n")

    @pytest.mark.parametrize(
        ("name", "reason", "said"),
        [
            ("unknown", "tls_unknown_ca", "unable to get local issuer certificate"),
            ("revoked", "tls_certificate_revoked", "certificate revoked"),
            ("expired", "tls_certificate_expired", "certificate has expired"),
            (None, "tls_no_certificate", "peer did not return a certificate"),
        ],
    )
    async def test_refusals(
        self,
        encrypted: EncryptedGateway,
        pki: Pki,
        new_token: NewToken,
        name: str | None,
        reason: str,
        said: str,
    ) -> None:
        before = encrypted.count("events", "closed", reason)
        arguments = files(getattr(pki, name)) if name else ()
        code, _ = await mosquitto_rr(encrypted, pki, new_token(), *arguments)
        assert code != 0
        assert encrypted.count("events", "closed", reason) == before + 1
        assert said in encrypted.log


class TestCurl:
    async def test_without_a_certificate(
        self, encrypted: EncryptedGateway, pki: Pki, echo_extension: Extension, new_token: NewToken
    ) -> None:
        assert await curl(encrypted, pki, new_token()) == (0, "over TLS")

    async def test_with_a_certificate(
        self, encrypted: EncryptedGateway, pki: Pki, echo_extension: Extension, new_token: NewToken
    ) -> None:
        assert await curl(encrypted, pki, new_token(), *files(pki.device)) == (0, "over TLS")

    async def test_a_certificate_that_is_shown_must_be_good(
        self, encrypted: EncryptedGateway, pki: Pki, new_token: NewToken
    ) -> None:
        code, _ = await curl(encrypted, pki, new_token(), *files(pki.unknown))
        assert code != 0
        assert encrypted.count("events", "closed", "tls_unknown_ca") > 0

    async def test_alpn(
        self, encrypted: EncryptedGateway, pki: Pki, echo_extension: Extension, new_token: NewToken
    ) -> None:
        code, output = await curl(encrypted, pki, new_token(), "--http2", "--verbose")
        assert code == 0
        assert "server accepted http/1.1" in output

    async def test_a_body_of_many_records(
        self,
        encrypted: EncryptedGateway,
        pki: Pki,
        echo_extension: Extension,
        new_token: NewToken,
        tmp_path: Path,
    ) -> None:
        body = os.urandom(900_000)
        (tmp_path / "body").write_bytes(body)
        code, _ = await curl(
            encrypted, pki, new_token(), "--data-binary", f"@{tmp_path / 'body'}", "--output", str(tmp_path / "answer")
        )  # fmt: skip
        assert code == 0
        assert (tmp_path / "answer").read_bytes() == body + b"&over TLS"


class TestHandshakes:
    async def test_plain_connect_on_the_tls_port_fails_at_once(self, encrypted: EncryptedGateway) -> None:
        before = encrypted.count("events", "closed", "tls_not_tls")
        reader, writer = await asyncio.open_connection(HOST, encrypted.mqtts_port)
        writer.write(mqtt.encode(mqtt.Connect("plain")))
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        assert encrypted.count("events", "closed", "tls_not_tls") == before + 1

    async def test_stalled_ones_hold_up_nobody(
        self, encrypted: EncryptedGateway, pki: Pki, new_token: NewToken, echo_extension: Extension
    ) -> None:
        """Beyond `handshakes`, the oldest makes room for the next."""
        before = encrypted.count("events", "closed", "tls_handshakes_full")
        stalled = []
        for _ in range(12):
            stalled.append(await asyncio.open_connection(HOST, encrypted.mqtts_port))
            stalled[-1][1].write(b"\x16\x03\x01\x02\x00\x01")
        assert await mosquitto_rr(encrypted, pki, new_token(), *files(pki.device)) == (0, "over TLS\n")
        assert encrypted.count("events", "closed", "tls_handshakes_full") == before + 5
        for _, writer in stalled:
            writer.close()

    async def test_one_that_is_given_up(self, encrypted: EncryptedGateway) -> None:
        before = encrypted.count("events", "closed", "tls_handshake_aborted")
        _, writer = await asyncio.open_connection(HOST, encrypted.mqtts_port)
        writer.close()
        await until(
            lambda: encrypted.count("events", "closed", "tls_handshake_aborted") > before,
            "the handshake's end",
        )


async def test_bytes_in_any_pieces(
    encrypted: EncryptedGateway, pki: Pki, echo_extension: Extension, new_token: NewToken
) -> None:
    """TLS records, TCP segments and MQTT packets have nothing to do with one another."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(pki, pki.device).wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection(HOST, encrypted.mqtts_port)

    async def flush() -> None:
        for byte in outgoing.read():
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await writer.drain()

    async def receive() -> bytes:
        while True:
            try:
                return tls.read(65536)
            except ssl.SSLWantReadError:
                await flush()
                incoming.write(await asyncio.wait_for(reader.read(65536), 20))

    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await flush()
            incoming.write(await asyncio.wait_for(reader.read(65536), 20))
    topic = f"kp1/app_v1/echo/{new_token()}/hello/1"
    for byte in mqtt.encode(mqtt.Connect("pieces")) + mqtt.encode(mqtt.Publish(topic, b"pieces", 1, 1)):
        tls.write(bytes([byte]))
    await flush()
    received = b""
    while b"pieces" not in received:
        received += await receive()
    writer.close()


async def test_what_is_behind_a_handshake_in_one_segment(encrypted: EncryptedGateway, pki: Pki) -> None:
    """The client's Finished and its first packet may come together."""
    reader, writer = await asyncio.open_connection(
        HOST, encrypted.mqtts_port, ssl=context(pki, pki.device), server_hostname="localhost"
    )
    peer = MqttPeer(reader, writer)
    assert (await peer.connect("quick")).return_code == 0
    await peer.send(mqtt.Disconnect())
    assert await peer.receive() is None


async def test_output_to_a_client_that_does_not_read(
    encrypted: EncryptedGateway, pki: Pki, shared_nats: NatsServer, new_token: NewToken
) -> None:
    """It is closed when what waits for it passes the bound, as over plain TCP."""
    token = new_token()
    before = encrypted.count("events", "closed", "slow_reader")
    async with Cluster(shared_nats.url) as cluster:
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.connect((HOST, encrypted.mqtts_port))
            stuck = await asyncio.to_thread(
                context(pki, pki.device).wrap_socket, plain, server_hostname="localhost"
            )
            stuck.sendall(mqtt.encode(mqtt.Connect("stuck")))
            stuck.sendall(mqtt.encode(mqtt.Subscribe(1, ((f"kp1/app_v1/dcx/{token}/#", 0),))))
            await cluster.connectivity("connected", token)
            for _ in range(40):
                await cluster.push(token, bytes(512 * 1024))
                if encrypted.count("events", "closed", "slow_reader") > before:
                    break
            await until(
                lambda: encrypted.count("events", "closed", "slow_reader") == before + 1,
                "the connection's end",
            )
            stuck.close()


def test_unusable_files_do_not_start(shared_nats: NatsServer, tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    section = pki.section(**{"key-file": str(pki.device.key_file)})
    gateway = EncryptedGateway(shared_nats.url, {"mqtt": {"tls": section}})
    with pytest.raises(RuntimeError, match="did not start") as failure, gateway:
        pass
    key = "kaa.kpc.transports.mqtt.tls.key-file"
    message = f"{pki.device.key_file}: is not the key of the certificate in {pki.server.cert_file}"
    assert f"{key}: {message}\n" in str(failure.value)
    assert "Traceback" not in str(failure.value)


async def test_the_management_api_shows_the_chain_that_devices_see(
    shared_nats: NatsServer, tmp_path: Path
) -> None:
    """All certificates of the file, in its order; not the key that may be in it as well; a renewed one at once."""
    pki = Pki(tmp_path)
    authority = pki.authority.file.read_text()
    section = pki.section()
    chain = tmp_path / "chain.pem"
    section["cert-file"] = str(chain)

    async def shown(gateway: EncryptedGateway) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://{HOST}:{gateway.admin_port}/api/v1/certificate")

    def write(issued: Issued) -> str:
        certificate = issued.cert_file.read_text()
        chain.write_text(f"a note\n{certificate}{issued.key_file.read_text()}{authority}")
        return certificate + authority

    expected = write(pki.server)
    with EncryptedGateway(shared_nats.url, {"http": {"tls": section}}, workers=2) as gateway:
        answer = await shown(gateway)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/x-pem-file"
        assert answer.text.splitlines() == expected.splitlines()
        assert "PRIVATE" not in answer.text
        certificates = x509.load_pem_x509_certificates(answer.content)
        assert certificates[0] == pki.server.certificate
        renewed = pki.authority.issue("gateway")
        assert (await shown(gateway)).text.splitlines() != write(renewed).splitlines()
        answer = await shown(gateway)
        assert x509.load_pem_x509_certificates(answer.content)[0] == renewed.certificate


async def test_reload_leaves_open_connections_alone(shared_nats: NatsServer, tmp_path: Path) -> None:
    """A new certificate is shown, and a new revocation list holds, for new connections; bad files change nothing."""
    pki = Pki(tmp_path)
    section = pki.section("required")
    with EncryptedGateway(shared_nats.url, {"mqtt": {"tls": section}}) as gateway:

        async def connect(client: Issued) -> tuple[MqttPeer, str]:
            reader, writer = await asyncio.open_connection(
                HOST, gateway.mqtts_port, ssl=context(pki, client), server_hostname="localhost"
            )
            shown = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
            return MqttPeer(reader, writer), shown

        first, serial = await connect(pki.device)
        assert (await first.connect("first")).return_code == 0
        assert int(serial, 16) == pki.server.certificate.serial_number

        pki.server.key_file.write_text("not a key")
        await until(lambda: "changed files cannot be used" in gateway.log, "the refusal of a bad key")
        assert f"key-file: {pki.server.key_file}: holds no private key in PEM form" in gateway.log
        other, serial = await connect(pki.device)
        assert int(serial, 16) == pki.server.certificate.serial_number
        assert (await other.connect("other")).return_code == 0

        renewed = pki.authority.issue("gateway")
        pki.authority.revoke(pki.device)
        await until(lambda: "read changed files" in gateway.log, "the renewed certificate")
        expiry = gateway.count("certificate_not_after_seconds", "kaa.kpc.transports.mqtt.tls")
        assert expiry == renewed.certificate.not_valid_after_utc.timestamp()
        second = pki.authority.issue("second-device")
        peer, serial = await connect(second)
        assert int(serial, 16) == renewed.certificate.serial_number
        assert (await peer.connect("second")).return_code == 0

        late, _ = await connect(pki.device)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await late.receive()
        assert gateway.count("events", "closed", "tls_certificate_revoked") == 1
        assert await first.until_pingresp() == []


async def test_a_stream_of_events_over_tls(
    shared_nats: NatsServer, encrypted: EncryptedGateway, pki: Pki, new_token: NewToken
) -> None:
    extension = Extension("dcx", nats_urls=[shared_nats.url])
    token = new_token()
    asked = asyncio.Event()

    @extension.handler("*")
    async def note(request: Request) -> None:
        asked.set()

    url = f"https://localhost:{encrypted.https_port}/kp1/app_v1/dcx/{token}/command?wait=20"
    async with (
        extension,
        httpx.AsyncClient(verify=context(pki), timeout=30) as client,
        client.stream("GET", url, headers={"Accept": "text/event-stream"}) as response,
    ):
        assert response.status_code == 200
        await asyncio.wait_for(asked.wait(), 30)
        await extension.push(token, "/command/reboot", b"pushed over TLS")
        async with asyncio.timeout(30):
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    assert "pushed over TLS" in line
                    break
