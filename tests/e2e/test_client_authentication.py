"""Who may connect: user names and passwords over MQTT and HTTP, checked by 22/CAP, 16/ECAP and a file; tenants.

The clients are mosquitto_pub, curl, and bare packets.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kaa_bench.mqtt_packets import Connack, Connect, Publish
from kaa_gateway.identity.passwords import hashed

from tests.support.auth_provider import INSTANCE, AuthProvider
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.nats import HOST, NatsServer

TOPIC = "kp1/app_v1/dcx/endpoint/json"


def settings(provider: str, demand: str = "required", **clients: Any) -> dict[str, Any]:
    other = {"tenant": "umbrella", "versions": {"other_v1": {"allowed-extension-instances": ["dcx"]}}}
    return {
        "kaa": {
            "applications": {"app": {"tenant": "acme"}, "other": other},
            "kpc": {
                "transports": {
                    "mqtt": {"client-authentication": demand},
                    "http": {"client-authentication": demand},
                },
                "identity": {
                    "timeout": 20,
                    "clients": {
                        "provider": provider,
                        "service-instance": INSTANCE,
                        "default-tenant": "acme",
                        "negative-cache-ttl": 0,
                        **clients,
                    },
                },
            },
        }
    }


@pytest.fixture(scope="module")
def cap_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(shared_nats.url, settings("cap")) as process:
        yield process
        assert process.running, process.log
        assert "Traceback" not in process.log, process.log
        assert "secret" not in process.log, "no password in a log"


@pytest.fixture
async def auth(shared_nats: NatsServer) -> AsyncIterator[AuthProvider]:
    provider = AuthProvider(shared_nats.url)
    provider.clients["acme", "alice", "secret"] = {"credentialsId": "id-alice", "clientId": "a"}
    provider.clients["umbrella", "mallory", "secret"] = {"credentialsId": "id-mallory"}
    async with provider:
        yield provider


async def connack(port: int, user_name: str | None, password: bytes | None) -> int:
    async with mqtt_peer(port) as device:
        await device.send(Connect("c", user_name=user_name, password=password))
        return (await device.expect(Connack)).return_code


class Curl:
    """POSTs over one connection of curl: `requests` are (path, user and password or None)."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __call__(self, *requests: tuple[str, str | None]) -> list[tuple[int, str]]:
        """Status and challenge of each response."""
        command = ["curl", "--silent", "--max-time", "60"]
        for number, (path, user) in enumerate(requests):
            if number:
                command.append("--next")
            command += ["--data", "{}", "--output", "/dev/null"]
            command += ["--write-out", "%{http_code} %header{www-authenticate}\n"]
            if user is not None:
                command += ["--user", user]
            command.append(f"http://{HOST}:{self._port}/{path}")
        result = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=True, timeout=90
        )
        lines = [line.partition(" ") for line in result.stdout.splitlines()]
        return [(int(status), challenge) for status, _, challenge in lines]


async def test_right_and_wrong_passwords_over_mqtt(cap_gateway: GatewayProcess, auth: AuthProvider) -> None:
    """MQTT 3.1.1 section 3.2.2.3: 5 for who is nobody, 3 if nobody can tell."""
    port = cap_gateway.mqtt_port
    assert await connack(port, "alice", b"secret") == 0
    assert await connack(port, "mallory@umbrella", b"secret") == 0
    for user_name, password in (
        ("alice", b"wrong"),
        ("alice", None),
        ("alice@umbrella", b"secret"),
        ("mallory", b"secret"),
        ("alice", b"\xff"),
        (None, None),
    ):
        assert await connack(port, user_name, password) == 5, user_name
    auth.status = 500
    assert await connack(port, "somebody", b"secret") == 3
    auth.status = None
    asked = [fields for kind, fields in auth.requests if kind == "cap.basic"]
    assert (asked[0]["tenantId"], asked[0]["username"], asked[0]["password"]) == ("acme", "alice", "secret")
    assert (asked[1]["tenantId"], asked[1]["username"]) == ("umbrella", "mallory")


@pytest.mark.parametrize(("password", "code"), [("secret", 0), ("wrong", 5)])
async def test_mosquitto_pub(
    cap_gateway: GatewayProcess, auth: AuthProvider, cluster: Cluster, password: str, code: int
) -> None:
    command = ["mosquitto_pub", "-h", HOST, "-p", str(cap_gateway.mqtt_port), "-q", "1"]
    command += ["-u", "alice", "-P", password, "-t", TOPIC, "-m", "hello"]
    result = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=90)
    assert result.returncode == code, result.stderr
    if code == 0:
        assert (await cluster.request()).fields["payload"] == b"hello"


async def test_http_basic_asks_once_for_a_connection(
    cap_gateway: GatewayProcess, auth: AuthProvider, cluster: Cluster
) -> None:
    async def answering() -> None:
        while True:
            count = len(answered)
            (request,) = await cluster.next_requests(1, after=count)
            answered.append(request)
            await cluster.answer(request)

    answered: list[Any] = []
    auth.clients["acme", "bob", "secret"] = {"credentialsId": "id-bob"}
    task = asyncio.create_task(answering())
    curl = Curl(cap_gateway.http_port)
    assert await curl(*[(TOPIC, "bob:secret")] * 3) == [(200, "")] * 3
    assert auth.asked["cap.basic"] == 1
    foreign = TOPIC.replace("app_v1", "other_v1")
    challenge = 'Basic realm="kp1", charset="UTF-8"'
    assert await curl(
        (TOPIC, None), (TOPIC, "bob:wrong"), (foreign, "bob:secret"), (TOPIC, "bob:secret")
    ) == [(401, challenge), (401, challenge), (403, ""), (200, "")]
    assert auth.asked["cap.basic"] == 2, "the right ones are remembered"
    assert len(answered) == 4
    task.cancel()


async def test_a_client_speaks_for_its_tenants_applications_only(
    cap_gateway: GatewayProcess, auth: AuthProvider, cluster: Cluster
) -> None:
    async with mqtt_client(cap_gateway.mqtt_port, user_name="mallory@umbrella", password=b"secret") as device:
        await device.send(Publish(f"{TOPIC}/1", b"not mine"))
        assert json.loads((await device.expect(Publish)).payload)["statusCode"] == 403
        await device.send(Publish("kp1/other_v1/dcx/endpoint/json", b"mine"))
        assert (await cluster.request()).fields["payload"] == b"mine"


async def test_a_revocation_closes_the_clients_connections(
    cap_gateway: GatewayProcess, auth: AuthProvider
) -> None:
    port = cap_gateway.mqtt_port
    auth.clients["acme", "carol", "secret"] = {"credentialsId": "id-carol"}
    credentials: dict[str, Any] = {"user_name": "carol", "password": b"secret"}
    async with (
        mqtt_client(port, **credentials) as one,
        mqtt_client(port, **credentials) as two,
        mqtt_client(port, user_name="alice", password=b"secret") as other,
    ):
        del auth.clients["acme", "carol", "secret"]
        await auth.tell("client-credentials.basic.revoked", tenantId="acme", credentialsId="id-carol")
        assert await one.until_closed() == await two.until_closed() == []
        assert await other.until_pingresp() == []
        assert await connack(port, "carol", b"secret") == 5


async def test_the_client_of_a_session_is_shown(
    cap_gateway: GatewayProcess, cluster: Cluster, auth: AuthProvider
) -> None:
    """22/CAP, clientId: it names the client, the principal its credentials."""
    async with (
        mqtt_client(cap_gateway.mqtt_port, user_name="alice", password=b"secret") as device,
        httpx.AsyncClient(base_url=f"http://{HOST}:{cap_gateway.admin_port}") as operator,
    ):
        await device.send(Publish(TOPIC, b""))
        await cluster.request()
        found = (await operator.get("/api/v1/sessions")).json()["sessions"]
        shown = [(each["client"], each["principal"], each["tenant"]) for each in found]
        assert shown == [("a", "cap:acme:id-alice", "acme")]


async def test_an_updated_tenant_has_its_clients_checked_again(nats_server: NatsServer) -> None:
    """21/TLE: those that come from then on; who is connected stays."""
    with GatewayProcess(nats_server.url, settings("cap")) as gateway:
        provider = AuthProvider(nats_server.url)
        provider.clients["acme", "alice", "secret"] = {"credentialsId": "id-alice"}
        async with (
            provider as auth,
            mqtt_client(gateway.mqtt_port, user_name="alice", password=b"secret") as client,
        ):
            assert await connack(gateway.mqtt_port, "alice", b"secret") == 0
            assert auth.asked["cap.basic"] == 1
            del auth.clients["acme", "alice", "secret"]
            await auth.tell("tenant.lifecycle.updated", tenantId="acme")
            while await connack(gateway.mqtt_port, "alice", b"secret") == 0:
                await asyncio.sleep(0.05)
            assert await client.until_pingresp() == []


async def test_an_unregistered_tenant(nats_server: NatsServer) -> None:
    """21/TLE: its clients are closed, and so is who speaks for its endpoints."""
    with GatewayProcess(nats_server.url, settings("cap", "optional")) as gateway:
        provider = AuthProvider(nats_server.url)
        provider.clients["acme", "alice", "secret"] = {"credentialsId": "id-alice"}
        async with (
            provider as auth,
            Cluster(nats_server.url, "dcx") as cluster,
            mqtt_client(gateway.mqtt_port, user_name="alice", password=b"secret") as client,
            mqtt_client(gateway.mqtt_port) as anonymous,
            mqtt_client(gateway.mqtt_port) as bystander,
        ):
            await anonymous.send(Publish(TOPIC, b""))
            await bystander.send(Publish("kp1/other_v1/dcx/other/json", b""))
            await cluster.next_requests(2)
            await auth.tell("tenant.lifecycle.unregistered", tenantId="acme")
            assert await client.until_closed() == await anonymous.until_closed() == []
            await bystander.send(Publish(f"{TOPIC}/1", b""))
            assert json.loads((await bystander.expect(Publish)).payload)["statusCode"] == 404


async def test_ecap_clients_and_optional_credentials(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url, settings("ecap", "optional")) as gateway:
        provider = AuthProvider(nats_server.url)
        provider.clients["dave", "secret"] = {"credentialId": "id-dave", "clientId": "d"}
        async with provider as auth:
            port = gateway.mqtt_port
            assert await connack(port, None, None) == 0
            assert await connack(port, "dave", b"wrong") == 5
            async with mqtt_client(port, user_name="dave", password=b"secret") as device:
                await auth.tell("client.credential.revoked", credentialId="id-dave")
                assert await device.until_closed() == []
            assert auth.asked["ecap.client-username-password"] == 2


async def test_clients_of_a_file(nats_server: NatsServer, tmp_path: Path) -> None:
    path = tmp_path / "identity.yml"
    clients = {"erin": {"password": hashed(b"secret"), "tenant": "umbrella"}}
    path.write_text(json.dumps({"clients": clients}), encoding="utf-8")
    document = settings("static")
    document["kaa"]["kpc"]["identity"]["static"] = {"file": str(path)}
    with GatewayProcess(nats_server.url, document) as gateway:
        port = gateway.mqtt_port
        assert await connack(port, "erin", b"wrong") == 5
        assert await connack(port, "nobody", b"secret") == 5
        async with mqtt_client(port, user_name="erin", password=b"secret") as device:
            await device.send(Publish(f"{TOPIC}/1", b"not mine"))
            assert json.loads((await device.expect(Publish)).payload)["statusCode"] == 403
        await until(lambda: gateway.count("events", "closed", "credentials_rejected") == 2, "the counts")
