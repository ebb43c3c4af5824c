"""Tenants with authorities of their own: which device gets in where, and what becomes of a certificate of another.

The clients are Mosquitto's, curl and libcoap's, the provider is the reference one.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt
from OpenSSL import SSL

from tests.support.certificates import Authority, Issued
from tests.support.dtls import DtlsClient
from tests.support.encrypted import EncryptedGateway, run
from tests.support.extensions import kaa_ext, running
from tests.support.mqtt import MqttPeer
from tests.support.nats import HOST, NatsServer, free_port

ACCEPTED, NOT_AUTHORIZED = 0, 5
ACME_NAME, UMBRELLA_NAME = "acme.localhost", "umbrella.localhost"


class Tenants:
    """Two tenants, the files of the listener, and what each has issued."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server_authority = Authority(directory, "server-ca")
        self.server = self.server_authority.issue("gateway", hosts=("localhost", ACME_NAME, UMBRELLA_NAME))
        self.acme_server = self.server_authority.issue("acme-gateway", hosts=(ACME_NAME,))
        self.acme, self.stranger = (Authority(directory, name) for name in ("acme-ca", "stranger-ca"))
        (directory / "umbrella").mkdir()
        self.umbrella = Authority(directory / "umbrella", "umbrella-ca")
        self.pump = self.acme.issue("pump")
        self.valve = self.acme.issue("valve")
        self.expired = self.acme.issue("expired", expired=True)
        self.revoked = self.acme.issue("revoked")
        self.acme.revoke(self.revoked)
        self.drone = self.umbrella.issue("drone")
        self.spy = self.umbrella.issue("pump")
        """Of umbrella, with the common name of a device of acme."""
        self.unknown = self.stranger.issue("unknown")

    def section(self, client_certificate: str, **changes: Any) -> dict[str, Any]:
        """A listener on a free port."""
        return {
            "enabled": True,
            "port": free_port(),
            "cert-file": str(self.server.cert_file),
            "key-file": str(self.server.key_file),
            "client-certificate": client_certificate,
            "tenants": {
                "acme": {
                    "ca-file": str(self.acme.file),
                    "crl-file": str(self.acme.crl_file),
                    "server-names": [ACME_NAME],
                    "cert-file": str(self.acme_server.cert_file),
                    "key-file": str(self.acme_server.key_file),
                },
                "umbrella": {
                    "ca-file": str(self.umbrella.file),
                    "crl-file": str(self.umbrella.crl_file),
                    "server-names": [UMBRELLA_NAME],
                },
            },
            **changes,
        }

    def context(self, client: Issued | None = None, *, newest: str = "1.3") -> ssl.SSLContext:
        """A client's."""
        context = ssl.create_default_context(cafile=self.server_authority.file)
        context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[newest]
        if client is not None:
            context.load_cert_chain(client.cert_file, client.key_file)
        return context


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as server:
        yield server


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Tenants:
    return Tenants(tmp_path_factory.mktemp("tenants"))


@pytest.fixture(scope="module")
def gateway(nats: NatsServer, tenants: Tenants) -> Iterator[EncryptedGateway]:
    """The devices of acme are bound to their tokens; the certificates of umbrella need no provider."""
    required = {"client-authentication": "required"}
    transports = {
        "mqtt": {**required, "tls": tenants.section("required")},
        "http": {**required, "tls": tenants.section("optional")},
        "coap": {"dtls": tenants.section("optional", **required)},
    }
    no_cache = {"service-instance": "auth", "negative-cache-ttl": 0}
    identity = {
        "provider": "ecap",
        "timeout": 20,
        "ecap": {**no_cache, "cache-ttl": 0},
        "clients": {"provider": "cap", **no_cache, "cache-ttl": 0},
    }
    applications = {
        "app": {"tenant": "acme"},
        "other": {"tenant": "umbrella", "versions": {"other_v1": {"allowed-extension-instances": ["echo"]}}},
    }
    policies = {
        "acme": {"certificates": {"tokens": "common-name"}},
        "umbrella": {"certificates": {"admit": "signed"}},
    }
    with EncryptedGateway(nats.url, transports, applications, policies, identity=identity) as process:
        yield process
        assert "Traceback" not in process.log, process.log


@pytest.fixture
async def services(nats: NatsServer) -> AsyncIterator[None]:
    async with running("auth", "echo", nats_url=nats.url):
        yield


async def auth(nats: NatsServer, *arguments: str) -> str:
    """What `kaa-ext auth` prints."""
    code, output, errors = await kaa_ext("auth", *arguments, nats_url=nats.url)
    assert (code, errors) == (0, "")
    return output


@pytest.fixture
async def provisioned(nats: NatsServer, tenants: Tenants, services: None) -> None:
    """Devices of acme add themselves; umbrella's drone has a token."""
    await auth(nats, "add-authority", tenants.acme.name.rfc4514_string(), "--tenant", "acme")
    await auth(nats, "provision", "app", "--limit", "100")
    code, _, errors = await kaa_ext(
        "auth", "add", "drone-1", "--app", "other", "--token", "drone", nats_url=nats.url
    )
    assert code == 0 or "already" in errors


async def mosquitto_rr(
    gateway: EncryptedGateway,
    tenants: Tenants,
    client: Issued,
    path: str,
    answer: str = "status",
) -> tuple[int | None, str]:
    """Exit code of mosquitto_rr, and the answer: that of the extension, or the gateway's `error`."""
    return await run(
        "mosquitto_rr", "-h", "localhost", "-p", str(gateway.mqtts_port), "-V", "311", "-q", "1", "-W", "30",
        "-t", f"{path}/1", "-m", "hello", "-e", f"{path}/1/{answer}",
        "--cafile", str(tenants.server_authority.file), "--cert", str(client.cert_file),
        "--key", str(client.key_file),
    )  # fmt: skip


async def curl(
    gateway: EncryptedGateway, tenants: Tenants, client: Issued, path: str, host: str = "localhost"
) -> str:
    """The status."""
    _, output = await run(
        "curl", "-s", "-o", "-", "-w", "%{http_code}", "-d", "hello", "--resolve",
        f"{host}:{gateway.https_port}:{HOST}", "--cacert", str(tenants.server_authority.file),
        "--cert", str(client.cert_file), "--key", str(client.key_file),
        f"https://{host}:{gateway.https_port}/{path}",
    )  # fmt: skip
    return output


async def s_client(
    gateway: EncryptedGateway, tenants: Tenants, client: Issued, server_name: str, newest: str
) -> tuple[int | None, str]:
    """What `openssl s_client` says, which waits a moment for what comes after its handshake."""
    return await run(
        "sh", "-c", 'sleep 2 | openssl s_client "$@" 2>&1', "sh", "-connect", f"{HOST}:{gateway.mqtts_port}",
        "-servername", server_name, "-tls1_2" if newest == "1.2" else "-tls1_3",
        "-CAfile", str(tenants.server_authority.file), "-cert", str(client.cert_file), "-key", str(client.key_file),
    )  # fmt: skip


async def coap_client(
    gateway: EncryptedGateway, tenants: Tenants, client: Issued, path: str, wait: int = 30
) -> str:
    _, output = await run(
        "coap-client-openssl", "-B", str(wait), "-m", "post", "-e", "hello",
        "-c", str(client.cert_file), "-j", str(client.key_file), "-C", str(tenants.server_authority.file),
        f"coaps://{HOST}:{gateway.coaps_port}/{path}",
    )  # fmt: skip
    return output


class TlsClient:
    """A client over TLS that tells how far it gets, with a server name or without."""

    def __init__(self, port: int, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self._port = port
        context.check_hostname = server_name is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, False, server_name)

    async def connect(self, name: str = "") -> int | None:
        """The return code of CONNACK; None if the server ends the connection before."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        answer = b""
        sent = False
        try:
            async with asyncio.timeout(30):
                while len(answer) < 4:
                    try:
                        if not sent:
                            self.tls.do_handshake()
                            self.tls.write(mqtt.encode(mqtt.Connect(name, keep_alive=0)))
                            sent = True
                        answer += self.tls.read(4)
                    except ssl.SSLWantReadError:
                        writer.write(self._outgoing.read())
                        data = await reader.read(65536)
                        if not data:
                            return None
                        self._incoming.write(data)
                    except ssl.SSLError:
                        return None
        except ConnectionError:
            return None
        finally:
            writer.close()
        return answer[3]


async def test_devices_of_each_tenant_reach_its_application_over_every_transport(
    gateway: EncryptedGateway, tenants: Tenants, provisioned: None
) -> None:
    for client, path in (
        (tenants.pump, "kp1/app_v1/echo/pump/x"),
        (tenants.drone, "kp1/other_v1/echo/drone/x"),
    ):
        assert await mosquitto_rr(gateway, tenants, client, path) == (0, "hello\n")
        assert await curl(gateway, tenants, client, path) == "hello200"
        assert "hello" in await coap_client(gateway, tenants, client, path)


async def test_another_tenants_application_and_token_are_refused_over_every_transport(
    gateway: EncryptedGateway, tenants: Tenants, provisioned: None
) -> None:
    """A certificate of umbrella with the common name of acme's pump, and its token."""
    for client, path in (
        (tenants.spy, "kp1/app_v1/echo/pump/x"),
        (tenants.pump, "kp1/other_v1/echo/drone/x"),
    ):
        before = gateway.count("events", "refused", "wrong_tenant")
        assert '"statusCode":403' in (await mosquitto_rr(gateway, tenants, client, path, answer="error"))[1]
        assert (await curl(gateway, tenants, client, path)).endswith("403")
        assert "4.03" in await coap_client(gateway, tenants, client, path)
        # Mosquitto's client has subscribed besides.
        assert gateway.count("events", "refused", "wrong_tenant") >= before + 3
    # A path of its own tenant does not make it the endpoint: the token belongs to acme's application.
    assert (await curl(gateway, tenants, tenants.spy, "kp1/other_v1/echo/pump/x")).endswith("401")


async def test_a_certificate_bound_to_its_token_may_use_no_other(
    gateway: EncryptedGateway, tenants: Tenants, provisioned: None
) -> None:
    assert await curl(gateway, tenants, tenants.valve, "kp1/app_v1/echo/valve/x") == "hello200"
    before = gateway.count("events", "refused", "other_token")
    path = "kp1/app_v1/echo/valve/x"
    for route_is_known in (False, True):
        if route_is_known:
            assert await curl(gateway, tenants, tenants.valve, path) == "hello200"
        assert (await curl(gateway, tenants, tenants.pump, path)).endswith("403")
    assert '"statusCode":403' in (await mosquitto_rr(gateway, tenants, tenants.pump, path, answer="error"))[1]
    assert "4.03" in await coap_client(gateway, tenants, tenants.pump, path)
    assert gateway.count("events", "refused", "other_token") >= before + 4


async def test_the_server_name_chooses_the_tenant_and_its_certificate(
    gateway: EncryptedGateway, tenants: Tenants, provisioned: None
) -> None:
    port = gateway.mqtts_port
    for client, server_name in ((tenants.pump, ACME_NAME), (tenants.drone, UMBRELLA_NAME)):
        peer = TlsClient(port, tenants.context(client), server_name)
        assert await peer.connect() == ACCEPTED
        shown = peer.tls.getpeercert()
        assert shown is not None
        assert ("acme-gateway" in str(shown["subject"])) == (server_name == ACME_NAME)
    for client in (tenants.pump, tenants.drone):
        assert await TlsClient(port, tenants.context(client)).connect() == ACCEPTED, "by the chain alone"


@pytest.mark.parametrize("newest", ["1.2", "1.3"])
async def test_the_server_name_of_one_tenant_with_the_chain_of_another_is_refused(
    gateway: EncryptedGateway, tenants: Tenants, provisioned: None, newest: str
) -> None:
    for client, server_name in ((tenants.drone, ACME_NAME), (tenants.pump, UMBRELLA_NAME)):
        before = gateway.count("events", "closed", "tls_unknown_ca")
        context = tenants.context(client, newest=newest)
        assert await TlsClient(gateway.mqtts_port, context, server_name).connect() is None
        assert gateway.count("events", "closed", "tls_unknown_ca") == before + 1
    _, output = await s_client(gateway, tenants, tenants.drone, ACME_NAME, newest)
    assert "alert unknown ca" in output
    assert (
        "Verify return code: 0 (ok)" in (await s_client(gateway, tenants, tenants.pump, ACME_NAME, newest))[1]
    )
    path = "kp1/app_v1/echo/pump/x"
    assert await curl(gateway, tenants, tenants.pump, path, ACME_NAME) == "hello200"
    assert await curl(gateway, tenants, tenants.pump, path, UMBRELLA_NAME) == "000"


async def test_expired_revoked_and_unknown_certificates_are_refused_with_their_reasons(
    gateway: EncryptedGateway, tenants: Tenants, services: None
) -> None:
    for client, reason in (
        (tenants.expired, "tls_certificate_expired"),
        (tenants.revoked, "tls_certificate_revoked"),
        (tenants.unknown, "tls_unknown_ca"),
    ):
        for server_name in (None, ACME_NAME):
            before = gateway.count("events", "closed", reason)
            context = tenants.context(client)
            assert await TlsClient(gateway.mqtts_port, context, server_name).connect() is None
            assert gateway.count("events", "closed", reason) == before + 1
        device = DtlsClient(gateway.coaps_port, issued=client, ca_file=tenants.server_authority.file)
        before = gateway.count("events", "closed", reason)
        with pytest.raises(SSL.Error):
            await device.handshake()
        assert gateway.count("events", "closed", reason) == before + 1


async def test_two_first_connections_of_a_device_make_one_client_and_one_endpoint(
    gateway: EncryptedGateway, tenants: Tenants, nats: NatsServer, provisioned: None
) -> None:
    """With two replicas of the provider, so that none of them sees both."""
    async with running("auth", nats_url=nats.url):
        for number in range(5):
            device = tenants.acme.issue(f"new-{number}")
            path = f"kp1/app_v1/echo/new-{number}/x"
            assert (
                await asyncio.gather(*(curl(gateway, tenants, device, path) for _ in range(4)))
                == ["hello200"] * 4
            )
            listed = await auth(nats, "list")
            assert listed.count(f"{device.serial_number} of ") == 1
        tokens = [line for line in listed.splitlines() if "  token  app  " in line]
        (counted,) = (line for line in listed.splitlines() if "  application  app  " in line)
        assert f"{len(tokens)} of 100 endpoints" in counted


async def test_a_revoked_client_does_not_come_back_by_its_signature(
    gateway: EncryptedGateway, tenants: Tenants, nats: NatsServer, provisioned: None
) -> None:
    device = tenants.acme.issue("bad")
    assert await curl(gateway, tenants, device, "kp1/app_v1/echo/bad/x") == "hello200"
    (line,) = (line for line in (await auth(nats, "list")).splitlines() if device.serial_number in line)
    await auth(nats, "revoke", line.split("  ")[0])
    assert (await curl(gateway, tenants, device, "kp1/app_v1/echo/bad/x")).endswith("401")
    assert await TlsClient(gateway.mqtts_port, tenants.context(device)).connect() == NOT_AUTHORIZED


async def test_the_limit_of_endpoints_that_devices_may_add(
    gateway: EncryptedGateway, tenants: Tenants, nats: NatsServer, provisioned: None
) -> None:
    """And an application that takes no new ones."""
    await auth(nats, "provision", "app", "--limit", "0")
    device = tenants.acme.issue("late")
    assert (await curl(gateway, tenants, device, "kp1/app_v1/echo/late/x")).endswith("401")


async def test_a_user_name_of_another_tenant_than_the_certificate_is_refused(
    gateway: EncryptedGateway, tenants: Tenants, nats: NatsServer, provisioned: None
) -> None:
    await auth(nats, "add-client", "alice", "--tenant", "umbrella", "--password", "wonderland")
    before = gateway.count("events", "closed", "certificate_of_other_tenant")
    for client, code in ((tenants.drone, ACCEPTED), (tenants.pump, NOT_AUTHORIZED)):
        context = tenants.context(client)
        reader, writer = await asyncio.open_connection(
            HOST, gateway.mqtts_port, ssl=context, server_hostname="localhost"
        )
        peer = MqttPeer(reader, writer)
        connack = await peer.connect("alice-1", user_name="alice@umbrella", password=b"wonderland")
        assert connack.return_code == code
        writer.close()
    assert gateway.count("events", "closed", "certificate_of_other_tenant") == before + 1


async def test_other_authorities_are_used_without_a_restart(
    gateway: EncryptedGateway, tenants: Tenants, provisioned: None
) -> None:
    old = tenants.umbrella.file.read_bytes(), tenants.umbrella.crl_file.read_bytes()
    successor = Authority(tenants.directory, "umbrella-new-ca")
    device = successor.issue("drone")
    assert await TlsClient(gateway.mqtts_port, tenants.context(device)).connect() is None
    tenants.umbrella.crl_file.write_bytes(successor.crl_file.read_bytes())
    tenants.umbrella.file.write_bytes(successor.file.read_bytes())

    async def admitted(client: Issued) -> bool:
        return await TlsClient(gateway.mqtts_port, tenants.context(client)).connect() == ACCEPTED

    async with asyncio.timeout(60):
        while not await admitted(device):
            await asyncio.sleep(0.5)
    assert not await admitted(tenants.drone)
    assert await admitted(tenants.pump), "another tenant's"
    tenants.umbrella.crl_file.write_bytes(old[1])
    tenants.umbrella.file.write_bytes(old[0])
    async with asyncio.timeout(60):
        while not await admitted(tenants.drone):
            await asyncio.sleep(0.5)
