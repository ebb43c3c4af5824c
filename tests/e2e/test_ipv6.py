"""Every listener over IPv6, with other people's clients; `::1` must be there, as it is on any Linux with IPv6."""

import asyncio
import queue
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from kaa_bench.peers.kpudp_client import KpudpClient
from kaa_ext import Extension
from kaa_ext.services import echo
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.encrypted import EncryptedGateway, Pki, run
from tests.support.esp import until
from tests.support.nats import HOST, NatsServer, free_port

NewToken = Callable[[], str]

LOOPBACK = "::1"
KEY = b"an example key!!"
TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    keys = pki.directory / "psk.yml"
    keys.write_text(f"keys: {{device-1: {KEY.hex()}}}\n")
    transports = {
        "bind-address": "::",
        "mqtt": {
            "tls": pki.section("required"),
            "websocket": {"enabled": True, "port": free_port(), "tls": pki.section("required")},
        },
        "http": {"tls": pki.section("required")},
        "coap": {"dtls": pki.section("optional", **{"psk-file": str(keys)})},
    }
    with EncryptedGateway(shared_nats.url, transports) as process:
        yield process
        assert "Traceback" not in process.log, process.log


@pytest.fixture(autouse=True)
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[None]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield


def path_of(token: str) -> str:
    return f"kp1/app_v1/echo/{token}/hello"


def files(pki: Pki, name: str = "device") -> tuple[str, ...]:
    client = getattr(pki, name)
    return "--cert", str(client.cert_file), "--key", str(client.key_file), "--cacert", str(pki.authority.file)


async def mosquitto_rr(port: int, token: str, *options: str) -> tuple[int | None, str]:
    topic = f"{path_of(token)}/1"
    return await run(
        "mosquitto_rr", "-h", LOOPBACK, "-p", str(port), "-V", "311", "-q", "1", "-W", "20",
        "-t", topic, "-e", f"{topic}/status", "-m", "hello", *options,
    )  # fmt: skip


async def test_mqtt(gateway: EncryptedGateway, pki: Pki, new_token: NewToken) -> None:
    tls = ("--cafile", str(pki.authority.file), *files(pki)[:4])
    assert await mosquitto_rr(gateway.mqtt_port, new_token()) == (0, "hello\n")
    assert await mosquitto_rr(gateway.mqtts_port, new_token(), *tls) == (0, "hello\n")


@pytest.mark.parametrize("encrypted", [False, True])
async def test_mqtt_over_websocket(
    gateway: EncryptedGateway, pki: Pki, new_token: NewToken, encrypted: bool
) -> None:
    topic = f"{path_of(new_token())}/1"

    def speak() -> bytes:
        messages: queue.Queue[bytes] = queue.Queue()
        client = paho.Client(CallbackAPIVersion.VERSION2, transport="websockets")
        client.ws_set_options("/ws")
        client.on_message = lambda _, __, message: messages.put(bytes(message.payload))
        if encrypted:
            client.tls_set(str(pki.authority.file), str(pki.device.cert_file), str(pki.device.key_file))
        client.connect(LOOPBACK, gateway.wss_port if encrypted else gateway.ws_port)
        client.loop_start()
        try:
            client.publish(topic, b"hello", 1).wait_for_publish(TIMEOUT_S)
            return messages.get(timeout=TIMEOUT_S)
        finally:
            client.disconnect()
            client.loop_stop()

    assert await asyncio.to_thread(speak) == b"hello"


async def curl(url: str, *options: str) -> tuple[int | None, str]:
    return await run("curl", "--silent", "--globoff", "--max-time", "20", "--data", "hello", *options, url)


async def test_http(gateway: EncryptedGateway, pki: Pki, new_token: NewToken) -> None:
    plain = f"http://[{LOOPBACK}]:{gateway.http_port}/{path_of(new_token())}"
    assert await curl(plain) == (0, "hello")
    encrypted = f"https://[{LOOPBACK}]:{gateway.https_port}/{path_of(new_token())}"
    assert await curl(encrypted, *files(pki)) == (0, "hello")


async def coap_client(program: str, url: str, *options: str) -> str:
    _, output = await run(program, "-B", "30", "-m", "post", "-e", "hello", *options, url)
    return output


async def test_coap(gateway: EncryptedGateway, pki: Pki, new_token: NewToken) -> None:
    plain = f"coap://[{LOOPBACK}]:{gateway.coap_port}/{path_of(new_token())}"
    assert "hello" in await coap_client("coap-client-notls", plain)
    encrypted = f"coaps://[{LOOPBACK}]:{gateway.coaps_port}/{path_of(new_token())}"
    certificate = ("-c", str(pki.device.cert_file), "-j", str(pki.device.key_file))
    authority = ("-C", str(pki.authority.file))
    assert "hello" in await coap_client("coap-client-openssl", encrypted, *certificate, *authority)
    shared_key = ("-u", "device-1", "-k", KEY.decode())
    assert "hello" in await coap_client("coap-client-openssl", encrypted, *shared_key)


async def test_kp_over_udp(gateway: EncryptedGateway, new_token: NewToken) -> None:
    async with KpudpClient(gateway.udp_port, host=LOOPBACK) as client:
        assert (await client.request(path_of(new_token()), b"hello")).payload == b"hello"


async def test_a_refused_handshake_is_logged_with_the_address(gateway: EncryptedGateway, pki: Pki) -> None:
    url = f"https://[{LOOPBACK}]:{gateway.https_port}/{path_of('nobody')}"
    code, _ = await curl(url, *files(pki, "unknown"))
    assert code != 0
    await until(lambda: "tls_unknown_ca" in gateway.log, "the line")
    (line,) = [line for line in gateway.log.splitlines() if "tls_unknown_ca" in line]
    assert f"[{LOOPBACK}]:" in line


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_ports_of_ipv4_are_free(gateway: EncryptedGateway, kind: Any) -> None:
    """`::` is IPv6 only, over TCP and UDP alike."""
    ports = (
        (gateway.mqtt_port, gateway.mqtts_port, gateway.ws_port, gateway.wss_port, gateway.https_port)
        if kind == socket.SOCK_STREAM
        else (gateway.coap_port, gateway.coaps_port, gateway.udp_port)
    )
    for port in ports:
        with socket.socket(socket.AF_INET, kind) as beside:
            beside.bind((HOST, port))
