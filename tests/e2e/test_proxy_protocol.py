"""The PROXY protocol with HAProxy in front of a gateway: every TCP listener, TLS at either end, and health checks."""

import asyncio
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.peers.kpudp_client import KpudpClient
from kaa_bench.peers.secure_kpudp_client import SecureKpudpClient
from kaa_ext import Extension
from kaa_ext.services import echo

from tests.support.encrypted import EncryptedGateway, Pki, run
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.header_proxy import header_proxy
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.proxy_headers import DATAGRAM, binary

HAPROXY = shutil.which("haproxy")
CLIENT = "127.0.0.77"
OTHER_PROXY = "127.0.0.78"
START_TIMEOUT_S = 20.0
CHECKS = 3
REFUSED = ("proxy_missing_header", "proxy_malformed_header")

IDENTITY, KEY = "device-1", b"an example key!!"

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


class HaProxy:
    """HAProxy in front of servers: {name: (port of the server, options of `server`, options of `bind`)}."""

    def __init__(self, directory: Path, servers: dict[str, tuple[int, str, str]]) -> None:
        assert HAPROXY is not None
        self.ports = {name: free_port() for name in servers}
        parts = ["defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"]
        for name, (port, server, bind) in servers.items():
            parts.append(
                f"listen {name}\n  bind {HOST}:{self.ports[name]} {bind}\n  server g {HOST}:{port} {server}\n"
            )
        file = directory / "haproxy.cfg"
        file.write_text("\n".join(parts))
        self._log = directory / "haproxy.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [HAPROXY, "-db", "-f", str(file)], stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> "HaProxy":
        deadline = time.monotonic() + START_TIMEOUT_S
        for port in self.ports.values():
            while time.monotonic() < deadline:
                try:
                    socket.create_connection((HOST, port)).close()
                    break
                except OSError:
                    assert self._process.poll() is None, self._log.read_text()
                    time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki(tmp_path_factory.mktemp("pki"))
    (pki.directory / "psk.yml").write_text(f"keys:\n  {IDENTITY}: {KEY.hex()}\n")
    return pki


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    transports: dict[str, Any] = {
        "mqtt": {"tls": pki.section("off"), "websocket": {"enabled": True, "port": free_port()}},
        "http": {"tls": pki.section("off")},
        "coap": {"dtls": pki.section("off", **{"psk-file": str(pki.directory / "psk.yml")})},
        "udp": {"secure": {"enabled": True, "port": free_port(), "psk-file": str(pki.directory / "psk.yml")}},
        "proxy-protocol": {
            "trusted-sources": [f"{HOST}/32", f"{OTHER_PROXY}/32"],
            "listeners": ["mqtt", "mqtts", "ws", "wss", "http", "https", "coap", "coaps", "udp", "udps"],
            "header-timeout": 1,
        },
    }
    with EncryptedGateway(
        shared_nats.url, transports, limits={"messages-per-second-of-source": 50}
    ) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield extension


async def connect(port: int, client_id: str, context: ssl.SSLContext | None = None, **options: Any) -> Any:
    """An MQTT connection from CLIENT, admitted."""
    reader, writer = await asyncio.open_connection(HOST, port, local_addr=(CLIENT, 0), ssl=context, **options)
    writer.write(mqtt.encode(mqtt.Connect(client_id, True, 0)))
    assert (await reader.readexactly(4))[0] == 0x20
    return writer


async def session_of(gateway: GatewayProcess, client_id: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        url = f"http://{HOST}:{gateway.admin_port}/api/v1/sessions"
        (session,) = (await client.get(url, params={"client": client_id})).json()["sessions"]
        return dict(session)


@needs_haproxy
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])
async def test_the_client_behind_haproxy(gateway: EncryptedGateway, tmp_path: Path, version: str) -> None:
    with HaProxy(tmp_path, {"mqtt": (gateway.mqtt_port, version, "")}) as proxy:
        writer = await connect(proxy.ports["mqtt"], f"client-{version[-6:]}")
        port = writer.get_extra_info("sockname")[1]
        session = await session_of(gateway, f"client-{version[-6:]}")
        assert session["peer"] == f"{CLIENT}:{port}"
        assert "proxied" not in session
        writer.close()


@needs_haproxy
async def test_tls_that_ends_at_haproxy(gateway: EncryptedGateway, pki: Pki, tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    pem.write_bytes(pki.server.cert_file.read_bytes() + pki.server.key_file.read_bytes())
    options = "send-proxy-v2 proxy-v2-options ssl,cert-cn,authority"
    bind = f"ssl crt {pem} ca-file {pki.authority.file} verify optional"
    with HaProxy(tmp_path, {"mqtts": (gateway.mqtt_port, options, bind)}) as proxy:
        for client, common_name in ((pki.device, "device"), (None, None)):
            context = ssl.create_default_context(cafile=pki.authority.file)
            if client is not None:
                context.load_cert_chain(client.cert_file, client.key_file)
            client_id = f"tls-{client is not None}"
            writer = await connect(proxy.ports["mqtts"], client_id, context, server_hostname="localhost")
            proxied = (await session_of(gateway, client_id))["proxied"]
            assert proxied == {"tls": True, "serverName": "localhost", "commonName": common_name}
            writer.close()


@needs_haproxy
async def test_tls_that_passes_through_haproxy(gateway: EncryptedGateway, pki: Pki, tmp_path: Path) -> None:
    with HaProxy(tmp_path, {"mqtts": (gateway.mqtts_port, "send-proxy-v2", "")}) as proxy:
        context = ssl.create_default_context(cafile=pki.authority.file)
        writer = await connect(proxy.ports["mqtts"], "passed", context, server_hostname="localhost")
        assert (await session_of(gateway, "passed"))["peer"].startswith(f"{CLIENT}:")
        writer.close()


@needs_haproxy
async def test_http_behind_haproxy(
    gateway: EncryptedGateway, pki: Pki, tmp_path: Path, echo_extension: Extension
) -> None:
    servers = {
        "http": (gateway.http_port, "send-proxy-v2", ""),
        "https": (gateway.https_port, "send-proxy", ""),
    }
    with HaProxy(tmp_path, servers) as proxy:
        for name, port in proxy.ports.items():
            status, body = await run(
                "curl", "--silent", "--show-error", "--cacert", str(pki.authority.file), "--interface", CLIENT,
                "--data", "behind HAProxy", f"{name}://localhost:{port}/kp1/app_v1/echo/{name}-t/hello",
            )  # fmt: skip
            assert (status, body) == (0, "behind HAProxy")


@needs_haproxy
async def test_checks_of_haproxy_leave_no_log_line(gateway: EncryptedGateway, tmp_path: Path) -> None:
    before, counted = gateway.log, gateway.count("connections_opened", "mqtt")
    check = "check inter 100ms"
    servers = {
        "plain": (gateway.mqtt_port, check, ""),
        "local": (gateway.mqtt_port, f"send-proxy-v2 check-send-proxy {check}", ""),
        "line": (gateway.mqtt_port, f"send-proxy check-send-proxy {check}", ""),
        "tls": (gateway.mqtts_port, f"send-proxy-v2 check-send-proxy {check}", ""),
    }
    with HaProxy(tmp_path, servers):
        await until(
            lambda: gateway.count("connections_opened", "mqtt") >= counted + CHECKS * len(servers),
            "checks",
        )
    assert gateway.log == before


async def test_a_header_that_does_not_come(gateway: EncryptedGateway) -> None:
    reader, writer = await asyncio.open_connection(HOST, gateway.mqtt_port)
    writer.write(b"PROXY TCP4 ")
    assert await reader.read() == b""
    writer.close()
    assert gateway.count("events", "closed", "proxy_header_timeout") >= 1


async def peers_of(gateway: GatewayProcess, endpoint: str, protocol: str) -> list[str]:
    """The addresses of the sessions of an endpoint, as operators see them."""
    async with httpx.AsyncClient() as management:
        url = f"http://{HOST}:{gateway.admin_port}/api/v1/sessions"
        found = (await management.get(url, params={"endpoint": endpoint, "protocol": protocol})).json()
    return [each["peer"] for each in found["sessions"]]


async def test_dtls_behind_a_proxy(gateway: EncryptedGateway, echo_extension: Extension) -> None:
    """libcoap shakes hands, sends a body in blocks, and gets it back; its address is the one in the headers."""
    body = "over DTLS and a proxy " * 200
    async with header_proxy(gateway.coaps_port, "198.51.100.8", 4712) as port:
        _, output = await run(
            "coap-client-openssl", "-B", "60", "-m", "post", "-u", IDENTITY, "-k", KEY.decode(), "-e", body,
            f"coaps://{HOST}:{port}/kp1/app_v1/echo/dtls-t/hello",
        )  # fmt: skip
    assert body in output
    assert await peers_of(gateway, "dtls-t", "coap") in ([], ["198.51.100.8:4712"])


async def test_dtls_without_a_header_is_dropped(gateway: EncryptedGateway) -> None:
    before = gateway.count("events", "dropped", "proxy_missing_header")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind((HOST, 0))
        device.sendto(b"\x16\xfe\xfd" + bytes(60), (HOST, gateway.coaps_port))
        await until(
            lambda: gateway.count("events", "dropped", "proxy_missing_header") == before + 1, "the datagram"
        )


async def test_kpudp_behind_a_proxy(gateway: EncryptedGateway, echo_extension: Extension) -> None:
    """Two devices behind one load balancer: answers and pushes go back to each."""
    async with (
        header_proxy(gateway.udp_port, "198.51.100.9", 4713) as port,
        header_proxy(gateway.udp_port, "2001:db8::9", 4714) as other_port,
        KpudpClient(port) as device,
        KpudpClient(other_port) as other,
    ):
        for client, token, peer in (
            (device, "kp-t", "198.51.100.9:4713"),
            (other, "kp-six", "[2001:db8::9]:4714"),
        ):
            answer = await client.request(f"kp1/app_v1/echo/{token}/hello", token.encode())
            assert (answer.status, answer.payload) == (200, token.encode())
            await client.confirmed(f"kp1/app_v1/echo/{token}/hello", b"confirmed")
            assert await peers_of(gateway, token, "udp") == [peer]
            await echo_extension.push(token, "/news", b"for " + token.encode())
            push = await asyncio.wait_for(client.pushes.get(), 60)
            assert push.payload == b"for " + token.encode()


async def test_encrypted_kpudp_behind_a_proxy(gateway: EncryptedGateway, echo_extension: Extension) -> None:
    """A device moves to another proxy, and keeps its session. The address shown is the client's."""
    async with (
        header_proxy(gateway.udps_port, "198.51.100.9", 4715) as port,
        header_proxy(gateway.udps_port, "2001:db8::9", 4716) as other_port,
        SecureKpudpClient(port, IDENTITY.encode(), KEY) as device,
    ):
        path = "kp1/app_v1/echo/kp-secure/hello"
        await device.confirmed(path, b"confirmed")
        assert await peers_of(gateway, "kp-secure", "udp") == ["198.51.100.9:4715"]
        device._server = (HOST, other_port)
        await device.rebind()
        assert (await device.request(path, b"hello")).payload == b"hello"
        await until(lambda: device.moves == 1, "the check of the path")
        await device.ping()
        assert await peers_of(gateway, "kp-secure", "udp") == ["[2001:db8::9]:4716"]
        await echo_extension.push("kp-secure", "/news", b"news")
        assert (await asyncio.wait_for(device.pushes.get(), 60)).payload == b"news"
        assert device.handshakes == 1


async def test_datagrams_of_a_proxy(gateway: EncryptedGateway, echo_extension: Extension) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.bind((OTHER_PROXY, 0))
        await loop.sock_connect(client, (HOST, gateway.coap_port))
        header = binary("198.51.100.7", 4711, kind=DATAGRAM)
        path = b"".join(
            bytes([(11 if number == 0 else 0) << 4 | len(level)]) + level
            for number, level in enumerate((b"kp1", b"app_v1", b"echo", b"udp-t", b"hello"))
        )
        await loop.sock_sendall(client, header + b"\x40\x02\x12\x34" + path + b"\xffbehind a proxy")
        answer = await asyncio.wait_for(loop.sock_recv(client, 2000), 20)
        assert answer.endswith(b"\xffbehind a proxy")
        assert await peers_of(gateway, "udp-t", "coap") == ["198.51.100.7:4711"]
        before = sum(gateway.count("events", "dropped", reason) for reason in REFUSED)
        for datagram in (b"\x40\x02\x12\x35" + path, header[:20]):
            await loop.sock_sendall(client, datagram)
        await until(
            lambda: sum(gateway.count("events", "dropped", reason) for reason in REFUSED) == before + 2,
            "datagrams to be dropped",
        )
