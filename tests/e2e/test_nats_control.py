"""The control connection of a whole gateway: TLS before INFO, and what is said and shown while it cannot come up."""

import asyncio
import contextlib
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Puback, Publish

from tests.support.certificates import Authority, nats_tls_config
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer

CHUNK = 64 * 1024


def test_both_connections_begin_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    config = nats_tls_config(authority, verify=True, first=True)
    certificate, key, _ = authority.issue("gateway")
    variables = {
        "KAA_KPC_NATS_TLS_HANDSHAKE_FIRST": "true",
        "KAA_KPC_NATS_TLS_CA_FILE": str(authority.file),
        "KAA_KPC_NATS_TLS_CERT_FILE": str(certificate),
        "KAA_KPC_NATS_TLS_KEY_FILE": str(key),
    }
    with (
        NatsServer(config=config, greets=False) as server,
        GatewayProcess(server.url, environment=variables) as gateway,
    ):
        asyncio.run(until(lambda: gateway.count("nats_control_up") == 1, "the control connection"))
        assert gateway.count("nats_up") == 1


@asynccontextmanager
async def without_control_connections(port: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to a NATS server on which control connections are refused until the event is set."""
    let_in = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, checked: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if checked and b' control"' in data and not let_in.is_set():
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(HOST, port)
            ways = [copy(reader, server_writer, checked=True), copy(server_reader, writer, checked=False)]
            for way in ways:
                task = asyncio.create_task(way)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield f"nats://{HOST}:{server.sockets[0].getsockname()[1]}", let_in
    finally:
        server.close()
        for task in tasks:
            task.cancel()


def readiness(gateway: GatewayProcess) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(HOST, gateway.admin_port, timeout=10)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_without_a_control_connection_it_is_not_ready_if_identity_needs_it(
    nats_server: NatsServer, workers: int
) -> None:
    changes = {"kaa": {"kpc": {"identity": {"provider": "ecap"}, "workers": workers}}}
    async with without_control_connections(nats_server.port) as (url, let_in):
        gateway = GatewayProcess(url, changes)
        try:
            gateway.launch()

            async def shown(count: int) -> bool:
                try:
                    metrics = await asyncio.to_thread(gateway.metrics)
                except OSError:
                    return False
                return metrics.get(("nats_up",), 0) == workers and metrics.get(("nats_control_up",)) == count

            async def wait(count: int) -> None:
                async with asyncio.timeout(60):
                    while not await shown(count):
                        await asyncio.sleep(0.1)

            await wait(0)
            await until(lambda: "cannot make the NATS control connection" in gateway.log, "a line in the log")
            status, said = await asyncio.to_thread(readiness, gateway)
            assert status == 503
            assert "control connection" in json.dumps(said)
            lines = gateway.log.count("cannot make the NATS control connection")
            await asyncio.sleep(3)
            assert gateway.log.count("cannot make the NATS control connection") <= max(lines, 2 * workers)
            let_in.set()
            await wait(workers)
            async with asyncio.timeout(30):
                while not await asyncio.to_thread(gateway.ready):
                    await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(gateway.close)


async def test_without_a_control_connection_devices_are_served_if_identity_does_not_need_it(
    nats_server: NatsServer,
) -> None:
    async with without_control_connections(nats_server.port) as (url, _):
        gateway = GatewayProcess(url)
        try:
            await asyncio.to_thread(gateway.start)
            assert await asyncio.to_thread(gateway.count, "nats_control_up") == 0
            async with mqtt_client(gateway.mqtt_port) as device:
                await device.send(Publish("kp1/app_v1/dcx/thing/json", b"1", 1, 1))
                await device.expect(Publish)
                assert await device.expect(Puback) == Puback(1)
        finally:
            await asyncio.to_thread(gateway.close)
