"""The reference provider end to end: `kaa-ext run auth`, `kaa-ext auth`, and a gateway that asks by 16/ECAP and 22/CAP.

Clients are Mosquitto's and curl, over mutual TLS.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.support.certificates import Issued
from tests.support.cluster import Cluster
from tests.support.encrypted import EncryptedGateway, Pki, run
from tests.support.extensions import kaa_ext, running
from tests.support.nats import NatsServer

ACCEPTED, NOT_AUTHORIZED = 0, 5
"""Exit codes of Mosquitto's clients are those of CONNACK."""
BASIC = 'Basic realm="kp1", charset="UTF-8"'
TOKEN = 'EndpointToken realm="kp1"'


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    """Whoever comes shows a certificate of the authority, and is a client that the provider knows."""
    transports = {
        name: {"client-authentication": "required", "tls": pki.section("required")}
        for name in ("mqtt", "http")
    }
    identity = {
        "provider": "ecap",
        "timeout": 20,
        "ecap": {"service-instance": "auth", "negative-cache-ttl": 0},
        "clients": {
            "provider": "cap",
            "service-instance": "auth",
            "default-tenant": "acme",
            "negative-cache-ttl": 0,
        },
    }
    other = {"tenant": "umbrella", "versions": {"other_v1": {"allowed-extension-instances": ["echo"]}}}
    applications = {"app": {"tenant": "acme"}, "other": other}
    with EncryptedGateway(nats.url, transports, applications, identity=identity) as process:
        yield process
        assert "Traceback" not in process.log, process.log
        assert "wonderland" not in process.log, "no password in a log"


@pytest.fixture
async def services(nats: NatsServer) -> AsyncIterator[None]:
    async with running("auth", "echo", nats_url=nats.url):
        yield


def labelled(output: str) -> dict[str, str]:
    """The lines of a command's output by the label before them."""
    return dict(line.split() for line in output.splitlines())


class Shell:
    """Where the commands of a test are typed."""

    def __init__(self, nats: NatsServer, gateway: EncryptedGateway, pki: Pki) -> None:
        self._nats = nats
        self._gateway = gateway
        self._pki = pki

    async def auth(self, *arguments: str) -> str:
        """What `kaa-ext auth` prints, which must succeed."""
        code, output, errors = await kaa_ext("auth", *arguments, nats_url=self._nats.url)
        assert (code, errors) == (0, "")
        return output

    async def refused(self, *arguments: str) -> str:
        """What `kaa-ext auth` says is wrong, in one line."""
        code, output, errors = await kaa_ext("auth", *arguments, nats_url=self._nats.url)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        return errors

    async def entries(self) -> dict[str, list[str]]:
        """What `kaa-ext auth list` says, by ID."""
        lines = [line.split("  ") for line in (await self.auth("list")).splitlines()]
        return {line[0]: line[1:] for line in lines}

    async def until_listed(self, id_: str, status: str) -> None:
        """Return when the entry has this status."""
        async with asyncio.timeout(40):
            while (await self.entries())[id_][3] != status:
                pass

    def mosquitto(self, program: str, client: Issued, topic: str, *options: str) -> list[str]:
        return [
            program, "-h", "localhost", "-p", str(self._gateway.mqtts_port), "-V", "311", "-q", "1", "-t", topic,
            "--cafile", str(self._pki.authority.file), "--cert", str(client.cert_file), "--key", str(client.key_file),
            *options,
        ]  # fmt: skip

    @asynccontextmanager
    async def subscriber(
        self, client: Issued, endpoint: str, token: str, *options: str
    ) -> AsyncIterator[tuple[asyncio.Task[tuple[int | None, str]], Cluster]]:
        """mosquitto_sub, when the gateway has told the cluster for which endpoint it listens.

        Cut off, it connects again, as these clients do, and ends when it hears that it may not.
        """
        command = self.mosquitto("mosquitto_sub", client, f"{path_of(token)}/#", *options)
        async with Cluster(self._nats.url) as cluster:
            listening = asyncio.create_task(run(*command))
            try:
                await cluster.connectivity("connected", endpoint)
                yield listening, cluster
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def token_of(self, endpoint: str, application: str = "app") -> str:
        """A new token of an endpoint."""
        return labelled(await self.auth("add", endpoint, "--app", application))["token"]

    async def publishes(self, client: Issued, topic: str, *options: str) -> tuple[int | None, str]:
        """Exit code of mosquitto_rr, and the answer of the extension."""
        answer = ("-e", f"{topic}/1/status", "-W", "30")
        return await run(
            *self.mosquitto("mosquitto_rr", client, f"{topic}/1", "-m", "hello", *answer, *options)
        )

    async def posts(self, client: Issued, path: str, *options: str) -> tuple[int, str]:
        """Status and challenge of the response that curl has got."""
        code, output = await run(
            "curl", "--silent", "--show-error", "--max-time", "30", "--cacert", str(self._pki.authority.file),
            "--cert", str(client.cert_file), "--key", str(client.key_file), "--data", "hello", "--output", "/dev/null",
            "--write-out", "%{http_code} %header{www-authenticate}", *options,
            f"https://localhost:{self._gateway.https_port}/{path}",
        )  # fmt: skip
        assert code == 0, output
        status, _, challenge = output.partition(" ")
        return int(status), challenge


@pytest.fixture
def shell(nats: NatsServer, gateway: EncryptedGateway, pki: Pki, services: None) -> Shell:
    return Shell(nats, gateway, pki)


def path_of(token: str, version: str = "app_v1") -> str:
    return f"kp1/{version}/echo/{token}/hello"


async def test_a_client_certificate_by_cap(shell: Shell, pki: Pki) -> None:
    """Over MQTT and HTTPS: unknown to the provider, known, of another tenant's applications, suspended, back again."""
    device = pki.authority.issue("meter")
    path = path_of(await shell.token_of("meter-1"))
    assert (await shell.publishes(device, path))[0] == NOT_AUTHORIZED
    assert await shell.posts(device, path) == (401, BASIC)
    issuer = pki.authority.name.rfc4514_string()
    output = await shell.auth("add-certificate", issuer, device.serial_number, "--tenant", "acme")
    id_ = labelled(output)["ID"]
    assert (await shell.entries())[id_] == [
        "certificate",
        "acme",
        f"{device.serial_number} of {issuer}",
        "Active",
    ]
    assert await shell.publishes(device, path) == (ACCEPTED, "hello\n")
    assert await shell.posts(device, path) == (200, "")
    foreign = path_of(await shell.token_of("meter-2", "other"), "other_v1")
    assert await shell.posts(device, foreign) == (403, "")

    token = await shell.token_of("listening-meter")
    async with shell.subscriber(device, "listening-meter", token) as (subscriber, _):
        await shell.auth("suspend", id_)
        assert (await subscriber)[0] == NOT_AUTHORIZED
    assert (await shell.entries())[id_][3] == "Suspended"
    assert await shell.posts(device, path) == (401, BASIC)
    await shell.auth("resume", id_)
    assert await shell.posts(device, path) == (200, "")


async def test_http_basic_over_mutual_tls(shell: Shell, pki: Pki) -> None:
    """The user name decides; the certificate, which the provider does not know, only opens the connection."""
    gate = pki.authority.issue("gate")
    path = path_of(await shell.token_of("gate-1"))
    await shell.auth("add-client", "alice", "--tenant", "acme", "--password", "wonderland")
    assert await shell.posts(gate, path, "--user", "alice:wonderland") == (200, "")
    assert await shell.posts(gate, path, "--user", "alice@acme:wonderland") == (200, "")
    assert await shell.posts(gate, path, "--user", "alice:looking-glass") == (401, BASIC)
    assert await shell.posts(gate, path) == (401, BASIC)
    assert await shell.posts(gate, path_of("nobody"), "--user", "alice:wonderland") == (401, TOKEN)
    password = ("-u", "alice", "-P")
    assert await shell.publishes(gate, path, *password, "wonderland") == (ACCEPTED, "hello\n")
    assert (await shell.publishes(gate, path, *password, "looking-glass"))[0] == NOT_AUTHORIZED


async def test_a_client_whose_time_is_over(shell: Shell, pki: Pki) -> None:
    """16/ECAP and 22/CAP have the provider tell when what was valid is so no more: its connections end then."""
    pump = pki.authority.issue("pump")
    token = await shell.token_of("pump-1")
    output = await shell.auth("add-client", "pump", "--tenant", "acme", "--password", "wonderland")
    assert labelled(output)["password"] == "wonderland"
    id_ = labelled(output)["ID"]
    password = ("-u", "pump", "-P", "wonderland")
    async with shell.subscriber(pump, "pump-1", token, *password) as (subscriber, _):
        await shell.auth("expire", id_, "1s")
        assert (await subscriber)[0] == NOT_AUTHORIZED
    assert (await shell.publishes(pump, path_of(token), *password))[0] == NOT_AUTHORIZED
    await shell.until_listed(id_, "Expired")
    assert "It has expired" in await shell.refused("resume", id_)
    await shell.auth("expire", id_, "never")
    assert (await shell.entries())[id_][3:] == ["Active"]
    assert await shell.publishes(pump, path_of(token), *password) == (ACCEPTED, "hello\n")


async def test_a_token_whose_time_is_over(shell: Shell, pki: Pki) -> None:
    """Its endpoint is taken from the connection that used it, which stays; others of the endpoint are good."""
    valve = pki.authority.issue("valve")
    issuer = pki.authority.name.rfc4514_string()
    await shell.auth("add-certificate", issuer, valve.serial_number, "--tenant", "acme", "--expires-in", "7d")
    added = labelled(await shell.auth("add", "valve-1", "--app", "app", "--expires-in", "7d"))
    token, id_ = added["token"], added["ID"]
    other = await shell.token_of("valve-1")
    async with shell.subscriber(valve, "valve-1", token) as (subscriber, cluster):
        await shell.auth("expire", id_, "1s")
        await cluster.connectivity("disconnected", "valve-1")
        assert not subscriber.done()
    assert await shell.posts(valve, path_of(token)) == (401, TOKEN)
    assert await shell.posts(valve, path_of(other)) == (200, "")
    entry = (await shell.entries())[id_]
    assert entry[:2] == ["token", "app"]
    assert entry[3] == "Expired"
    assert time.strptime(entry[4], "%Y-%m-%dT%H:%M:%SZ")


async def test_what_kaa_ext_auth_refuses(shell: Shell) -> None:
    token = await shell.token_of("twice")
    assert "is of twice already" in await shell.refused("add", "other", "--app", "app", f"--token={token}")
    assert "Nothing has the ID x-0" in await shell.refused("suspend", "x-0")
