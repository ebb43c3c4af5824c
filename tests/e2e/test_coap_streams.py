"""CoAP over TCP, TLS and WebSocket with other people's clients: libcoap's and aiocoap's, through a whole gateway."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiocoap
import pytest
from aiocoap import Code
from kaa_ext import Extension
from kaa_ext.services import echo
from kaa_gateway.wire.coap import Message
from kaa_gateway.wire.coap_stream import decode_stream, encode_stream

from tests.support.cluster import Cluster
from tests.support.encrypted import EncryptedGateway, Pki, run
from tests.support.nats import HOST, NatsServer, free_port

NewToken = Callable[[], str]
LARGE = bytes(i * 7 % 251 for i in range(100_000))
TIMEOUT_S = 40.0


@pytest.fixture(scope="module")
def coap(pki: Pki) -> dict[str, Any]:
    return {
        "tcp": {"enabled": True, "port": free_port()},
        "tls": pki.section("optional"),
        "websocket": {"enabled": True, "port": free_port(), "tls": pki.section("off")},
    }


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer, coap: dict[str, Any]) -> Iterator[EncryptedGateway]:
    proxy = {"trusted-sources": ["127.0.0.9/32"]}
    with EncryptedGateway(shared_nats.url, {"coap": coap, "proxy-protocol": proxy}) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield extension


async def aiocoap_client(*transports: str) -> aiocoap.Context:
    return await aiocoap.Context.create_client_context(transports=list(transports))


async def ask(client: aiocoap.Context, uri: str, payload: bytes, **changes: Any) -> aiocoap.Message:
    message = aiocoap.Message(code=changes.pop("code", Code.POST), uri=uri, payload=payload, **changes)
    return await asyncio.wait_for(client.request(message).response, TIMEOUT_S)


class TestLibcoap:
    async def test_tcp(
        self, gateway: EncryptedGateway, coap: dict[str, Any], echo_extension: Extension, new_token: NewToken
    ) -> None:
        uri = f"coap+tcp://{HOST}:{coap['tcp']['port']}/kp1/app_v1/echo/{new_token()}/json"
        assert await run("coap-client-notls", "-B", "30", "-m", "post", "-e", "over TCP", uri) == (
            0,
            "over TCP\n",
        )

    @pytest.mark.parametrize("certificate", [False, True])
    async def test_tls(
        self,
        gateway: EncryptedGateway,
        coap: dict[str, Any],
        pki: Pki,
        echo_extension: Extension,
        new_token: NewToken,
        certificate: bool,
    ) -> None:
        shown = ("-c", str(pki.device.cert_file), "-j", str(pki.device.key_file)) if certificate else ()
        uri = f"coaps+tcp://localhost:{coap['tls']['port']}/kp1/app_v1/echo/{new_token()}/json"
        assert await run(
            "coap-client-openssl", "-B", "30", "-m", "post", "-R", str(pki.authority.file), *shown,
            "-e", "over TLS", uri,
        ) == (0, "over TLS\n")  # fmt: skip

    async def test_a_large_body_each_way(
        self,
        gateway: EncryptedGateway,
        coap: dict[str, Any],
        echo_extension: Extension,
        new_token: NewToken,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        directory = tmp_path_factory.mktemp("bodies")
        (directory / "sent").write_bytes(LARGE)
        uri = f"coap+tcp://{HOST}:{coap['tcp']['port']}/kp1/app_v1/echo/{new_token()}/json"
        code, output = await run(
            "coap-client-notls", "-B", "30", "-m", "post", "-f", str(directory / "sent"),
            "-o", str(directory / "received"), uri,
        )  # fmt: skip
        assert (code, output) == (0, "")
        assert (directory / "received").read_bytes() == LARGE


class TestAiocoap:
    async def test_tcp(
        self, gateway: EncryptedGateway, coap: dict[str, Any], echo_extension: Extension, new_token: NewToken
    ) -> None:
        client = await aiocoap_client("tcpclient")
        try:
            uri = f"coap+tcp://{HOST}:{coap['tcp']['port']}/kp1/app_v1/echo/{new_token()}/json"
            for payload in (b"small", LARGE):
                response = await ask(client, uri, payload)
                assert (response.code, response.payload) == (Code.CHANGED, payload)
            missing = await ask(client, uri.replace("/json", "/status/404"), b"")
            assert missing.code == Code.NOT_FOUND
            root = uri.partition("/kp1")[0]
            links = await ask(client, f"{root}/.well-known/core?rt=kaa.echo", b"", code=Code.GET)
            assert b"</kp1/app_v1/echo>" in links.payload
        finally:
            await client.shutdown()

    async def test_tls(
        self,
        gateway: EncryptedGateway,
        coap: dict[str, Any],
        pki: Pki,
        echo_extension: Extension,
        new_token: NewToken,
    ) -> None:
        """aiocoap demands ALPN `coap` (RFC 8323 section 8.2)."""
        client = await aiocoap_client("tlsclient")
        try:
            root = f"coaps+tcp://localhost:{coap['tls']['port']}"
            client.client_credentials.load_from_dict(
                {f"{root}/*": {"tlscert": {"certfile": str(pki.authority.file)}}}
            )
            uri = f"{root}/kp1/app_v1/echo/{new_token()}/json"
            response = await ask(client, uri, b"over TLS")
            assert (response.code, response.payload) == (Code.CHANGED, b"over TLS")
        finally:
            await client.shutdown()

    async def test_websocket(
        self, gateway: EncryptedGateway, coap: dict[str, Any], echo_extension: Extension, new_token: NewToken
    ) -> None:
        client = await aiocoap_client("ws")
        try:
            uri = f"coap+ws://{HOST}:{coap['websocket']['port']}/kp1/app_v1/echo/{new_token()}/json"
            for payload in (b"small", LARGE):
                response = await ask(client, uri, payload)
                assert (response.code, response.payload) == (Code.CHANGED, payload)
        finally:
            await client.shutdown()

    async def test_observes_pushes(
        self,
        gateway: EncryptedGateway,
        coap: dict[str, Any],
        shared_nats: NatsServer,
        echo_extension: Extension,
        new_token: NewToken,
    ) -> None:
        token = new_token()
        client = await aiocoap_client("tcpclient")
        try:
            async with Cluster(shared_nats.url) as cluster:
                uri = f"coap+tcp://{HOST}:{coap['tcp']['port']}/kp1/app_v1/echo/{token}/config"
                request = client.request(aiocoap.Message(code=Code.GET, uri=uri, observe=0))
                await asyncio.wait_for(request.response, TIMEOUT_S)
                seen: asyncio.Queue[bytes] = asyncio.Queue()

                async def collect() -> None:
                    async for notification in request.observation:
                        seen.put_nowait(notification.payload)

                collecting = asyncio.create_task(collect())
                for number in range(3):
                    await cluster.push(
                        token,
                        str(number).encode(),
                        resourcePath="/config",
                        extensionInstanceName="echo",
                    )
                    assert await asyncio.wait_for(seen.get(), TIMEOUT_S) == str(number).encode()
                collecting.cancel()
        finally:
            await client.shutdown()


async def test_the_proxy_protocol(
    gateway: EncryptedGateway, coap: dict[str, Any], echo_extension: Extension, new_token: NewToken
) -> None:
    def speak() -> list[Message]:
        with socket.socket() as connection:
            connection.settimeout(TIMEOUT_S)
            connection.bind(("127.0.0.9", 0))
            connection.connect((HOST, coap["tcp"]["port"]))
            path = tuple((11, part.encode()) for part in f"kp1/app_v1/echo/{new_token()}/json".split("/"))
            connection.sendall(
                b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 5683\r\n"
                + encode_stream(Message(4, 0xE1, 0))
                + encode_stream(Message(4, 2, 0, b"t", path, b"hello"))
            )
            received = b""
            while len(decode_stream(received)[0]) < 2:
                received += connection.recv(65_536)
            return decode_stream(received)[0]

    csm, response = await asyncio.to_thread(speak)
    assert csm.code == 0xE1
    assert (response.code, response.payload) == (0x44, b"hello")


async def test_a_stopping_gateway_sends_release(shared_nats: NatsServer) -> None:
    port = free_port()
    tcp = {"enabled": True, "port": port, "alternative-address": "other.example"}
    with EncryptedGateway(shared_nats.url, {"coap": {"tcp": tcp}}) as gateway:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(encode_stream(Message(4, 0xE1, 0)))
        await asyncio.wait_for(reader.read(1), TIMEOUT_S)
        stopped = asyncio.create_task(asyncio.to_thread(gateway.stop))
        rest = await asyncio.wait_for(reader.read(), TIMEOUT_S)
        await stopped
        writer.close()
        assert encode_stream(Message(4, 0xE4, 0, b"", ((2, b"other.example"),))) in rest


async def test_alpn(gateway: EncryptedGateway, coap: dict[str, Any], pki: Pki) -> None:
    context = ssl.create_default_context(cafile=pki.authority.file)
    context.set_alpn_protocols(["coap"])
    reader, writer = await asyncio.open_connection("localhost", coap["tls"]["port"], ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "coap"
    assert await reader.readexactly(2)
    writer.close()
