"""A client's certificate is revoked while a request of that client waits for a push.

Source: 22/CAP, credentials revoked; docs/devices.md, "Wait for a push"; docs/coap.md, "Wait for a push".
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest
from kaa_gateway.wire.coap import Message, decode, encode

from tests.support.auth_provider import INSTANCE, AuthProvider
from tests.support.certificates import Issued
from tests.support.cluster import Cluster
from tests.support.coap import ACK, CON, POST, URI_PATH, URI_QUERY
from tests.support.dtls import DtlsClient
from tests.support.encrypted import EncryptedGateway, Pki
from tests.support.nats import HOST, NatsServer

TIMEOUT_S = 60.0
WAIT = "wait=200"
"""Longer than the test waits."""
VALID = 0x43


@pytest.fixture(scope="module")
def encrypted(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    required = {"client-authentication": "required"}
    transports = {
        "http": {**required, "tls": pki.section("required")},
        "coap": {"dtls": pki.section("required", **required)},
    }
    clients = {"provider": "cap", "service-instance": INSTANCE, "default-tenant": "acme"}
    applications = {"app": {"tenant": "acme"}}
    identity = {"timeout": 20, "clients": clients}
    with EncryptedGateway(shared_nats.url, transports, applications, identity=identity) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


def admit(auth: AuthProvider, pki: Pki, name: str) -> Issued:
    """Return a new certificate, whose credentials the provider knows by `name`."""
    issued = pki.authority.issue(name)
    auth.clients[pki.authority.name.rfc4514_string(), issued.serial_number] = {
        "tenantId": "acme",
        "credentialsId": name,
    }
    return issued


async def revoke(auth: AuthProvider, name: str) -> None:
    await auth.tell("client-credentials.certificate.revoked", tenantId="acme", credentialsId=name)


@contextlib.asynccontextmanager
async def https(
    gateway: EncryptedGateway, pki: Pki, issued: Issued, token: str, fields: str = ""
) -> AsyncIterator[asyncio.StreamReader]:
    """Send a request that waits, with these header fields, over a connection with this certificate."""
    context = ssl.create_default_context(cafile=pki.authority.file)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    reader, writer = await asyncio.open_connection(
        HOST, gateway.https_port, ssl=context, server_hostname="localhost"
    )
    path = f"/kp1/app_v1/dcx/{token}/command"
    request = f"POST {path}?{WAIT}" if not fields else f"GET {path}"
    writer.write(f"{request} HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n".encode())
    yield reader
    writer.close()


async def test_an_http_request_that_waits(
    encrypted: EncryptedGateway, pki: Pki, auth: AuthProvider, cluster: Cluster
) -> None:
    bad, good = admit(auth, pki, "http-bad"), admit(auth, pki, "http-good")
    async with (
        asyncio.timeout(TIMEOUT_S),
        https(encrypted, pki, bad, "bad") as reader,
        https(encrypted, pki, good, "good") as other,
    ):
        await cluster.next_requests(2)
        for token in ("bad", "good"):
            await cluster.connectivity("connected", token)  # the request waits
        await revoke(auth, "http-bad")
        assert (await reader.readline()).startswith(b"HTTP/1.1 204 ")
        await reader.read()  # the connection ends
        await cluster.push("good", resourcePath="/command")
        assert (await other.readline()).startswith(b"HTTP/1.1 200 ")


async def test_a_stream_of_events(
    encrypted: EncryptedGateway, pki: Pki, auth: AuthProvider, cluster: Cluster
) -> None:
    issued = admit(auth, pki, "sse-bad")
    async with (
        asyncio.timeout(TIMEOUT_S),
        https(encrypted, pki, issued, "sse", "Accept: text/event-stream\r\n") as reader,
    ):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        await revoke(auth, "sse-bad")
        await reader.read()


async def test_a_coap_request_that_waits(
    encrypted: EncryptedGateway, pki: Pki, auth: AuthProvider, cluster: Cluster
) -> None:
    issued = admit(auth, pki, "coap-bad")
    device = DtlsClient(encrypted.coaps_port, issued=issued, ca_file=pki.authority.file)
    async with asyncio.timeout(TIMEOUT_S):
        await device.handshake()
        options = [(URI_PATH, each) for each in (b"kp1", b"app_v1", b"dcx", b"coap", b"command")]
        request = Message(CON, POST, 1, b"t", (*options, (URI_QUERY, WAIT.encode())), b"")
        device.send(encode(request))
        await cluster.connectivity("connected", "coap")
        acknowledgement = decode(await device.receive())
        assert (acknowledgement.type, acknowledgement.code) == (ACK, 0)
        await revoke(auth, "coap-bad")
        response = decode(await device.receive())
        assert (response.code, response.token) == (VALID, b"t")
    device.close()
