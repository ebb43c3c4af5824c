"""`kaa-ext rest` as a server: TLS, metrics, access log, options, start and end."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from kaa_ext.rest import bounds, certificate
from kaa_ext.rest.server import RestServer, Settings
from kaa_ext.rest.services import Instances
from structlog.testing import capture_logs

from tests.support.certificates import Authority
from tests.support.extensions import kaa_ext, python, running
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.rest import Api, serving

TOKEN = "a-token-of-24-characters"
TIMEOUT_S = 30.0


async def test_metrics_and_the_access_log(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    management = free_port()
    options = ("--token-file", str(file), "--management", f"{HOST}:{management}", "--access-log")
    with NatsServer(jetstream=True) as nats:
        async with running("epmx", nats_url=nats.url), serving(nats.url, *options) as (url, rest):
            async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http:
                api = await Api.read(http)
                assert (await api.call("getMetadata", endpoint="ep")).status_code == 401
                http.headers["Authorization"] = f"Bearer {TOKEN}"
                await api.ok("getMetadata", endpoint="ep")
                await api.call("querySamples", endpoint="ep", limit=0)
                page = f"http://{HOST}:{management}"
                text = (await http.get(f"{page}/metrics")).text
                assert (await http.get(f"{page}/health/ready")).json() == {"status": "UP"}
                nats.stop()

                async def is_down() -> bool:
                    return (await http.get(f"{page}/health/ready")).status_code == 503

                async with asyncio.timeout(TIMEOUT_S):
                    while not await is_down():
                        await asyncio.sleep(0.05)
            rest.terminate()
            _, errors = await asyncio.wait_for(rest.communicate(), TIMEOUT_S)
    for line in (
        'kaa_rest_requests_total{operation="none",status="401"} 1.0',
        'kaa_rest_requests_total{operation="getMetadata",status="200"} 1.0',
        'kaa_rest_requests_total{operation="querySamples",status="400"} 1.0',
        'kaa_rest_request_seconds_count{operation="getMetadata"} 1.0',
        "kaa_rest_running_requests 0.0",
        "kaa_rest_up 1.0",
    ):
        assert line in text.splitlines(), text
    said = [line for line in errors.decode().splitlines() if "/endpoints/ep/metadata" in line]
    assert ["status=401" in said[0], "status=200" in said[1], len(said)] == [True, True, 2]
    assert "operation=getMetadata" in said[1]
    assert TOKEN not in errors.decode()


async def test_tls_with_a_certificate_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "WATCH_PERIOD_S", 0.05)
    authority = Authority(tmp_path)
    issued = authority.issue("rest")
    settings = Settings(certificate=(issued.cert_file, issued.key_file))
    context = ssl.create_default_context(cafile=str(authority.file))
    with NatsServer() as nats:
        server = RestServer([nats.url], settings, Instances())
        await server.start()
        try:

            async def serial_number() -> str:
                reader, writer = await asyncio.open_connection(HOST, server.port, ssl=context)
                writer.write(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                shown = writer.get_extra_info("peercert")
                writer.close()
                return str(int(shown["serialNumber"], 16))

            assert await serial_number() == issued.serial_number
            with capture_logs() as said:
                issued.cert_file.write_text("nothing")
                async with asyncio.timeout(TIMEOUT_S):
                    while not any(each["log_level"] == "error" for each in said):
                        await asyncio.sleep(0.05)
            assert await serial_number() == issued.serial_number
            newer = authority.issue("rest")
            async with asyncio.timeout(TIMEOUT_S):
                while await serial_number() != newer.serial_number:
                    await asyncio.sleep(0.1)
            with pytest.raises(httpx.HTTPError):
                async with httpx.AsyncClient() as http:
                    await http.get(f"http://{HOST}:{server.port}/health/live", timeout=TIMEOUT_S)
        finally:
            await server.stop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tls-cert", "{absent}"), "--tls-cert and --tls-key belong together"),
        (("--tls-cert", "{absent}", "--tls-key", "{absent}"), "No such file or directory"),
        (("--tls-cert", "{token}", "--tls-key", "{token}"), "in PEM form"),
        (("--management", "here"), "--management 'here': expected HOST:PORT or PORT"),
    ],
)
async def test_options_that_cannot_be_used(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    filled = [each.format(absent=tmp_path / "absent", token=token) for each in options]
    code, _, errors = await kaa_ext(
        "rest", "--port", str(free_port()), *filled, nats_url="nats://localhost:1"
    )
    assert (code, said in errors, errors.count("\n")) == (2, True, 1), errors


async def test_it_waits_for_nats_and_ends_cleanly() -> None:
    with NatsServer(jetstream=True) as nats:
        nats.stop()
        port = free_port()
        async with python("-P", "-m", "kaa_ext", "rest", "--port", str(port), nats_url=nats.url) as rest:
            assert rest.stderr is not None
            assert rest.stdout is not None
            said = await asyncio.wait_for(rest.stderr.readline(), TIMEOUT_S)
            assert b"cannot connect to NATS" in said
            nats.start()
            assert await asyncio.wait_for(rest.stdout.readline(), TIMEOUT_S) == b"ready\n"
            code, _, errors = await kaa_ext("rest", "--port", str(port), nats_url=nats.url)
            assert (code, f"--port {port}" in errors, errors.count("\n")) == (2, True, 1)
            rest.terminate()
            _, errors_ = await asyncio.wait_for(rest.communicate(), TIMEOUT_S)
            assert rest.returncode == 0
            assert b"Traceback" not in errors_


async def test_a_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "REQUEST_TIMEOUT_S", 0.3)
    with NatsServer() as nats:
        server = RestServer([nats.url], Settings(), Instances())
        await server.start()
        try:
            head = b"PUT /api/v1/endpoints/e/app-versions/v/configuration HTTP/1.1\r\nHost: localhost\r\n"
            slow = head + b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\n[1"
            for sent, expected in ((b"", b""), (head, b""), (slow, b"HTTP/1.1 408 ")):
                reader, writer = await asyncio.open_connection(HOST, server.port)
                writer.write(sent)
                answer = await asyncio.wait_for(reader.read(), TIMEOUT_S)
                assert answer.startswith(expected), answer
                assert bool(answer) == bool(expected)
                writer.close()
        finally:
            await server.stop()
