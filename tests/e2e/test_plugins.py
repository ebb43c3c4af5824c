"""Protocols of plug-ins in a gateway process: trackers, meters, TLS and DTLS, reload, the end."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.dtls import DtlsClient
from tests.support.encrypted import Pki
from tests.support.esp import until
from tests.support.example_protocols import DIRECTORY, gt06, modbus
from tests.support.extensions import APPLICATION, kaa_ext, running
from tests.support.gateway import ROOT, GatewayProcess, merged
from tests.support.nats import HOST, NatsServer, free_port

READ_TIMEOUT_S = 30
IMEI = "123456789012345"
LOGIN = bytes.fromhex("78780D01012345678901234500018CDD0D0A")
POSITION = bytes.fromhex("78781F120B081D112E10CF027AC7EB0C46584900148F01CC00287D001FB8000380810D0A")
PATHS = {"PYTHONPATH": ":".join(filter(None, (str(DIRECTORY), str(ROOT), os.environ.get("PYTHONPATH"))))}
APP_VERSION = "app_v1"
LINES = "tests.support.line_protocol:Lines"
DATAGRAMS = "tests.support.line_protocol:Datagrams"


def protocols(**sections: dict[str, Any]) -> dict[str, Any]:
    """Changes to the test configuration of a gateway."""
    entries = {name: {"app-version": APP_VERSION, **section} for name, section in sections.items()}
    return {"kaa": {"kpc": {"transports": {"protocols": entries}}}}


class Stream:
    """A device of TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), READ_TIMEOUT_S)

    async def line(self) -> str:
        line = await asyncio.wait_for(self.reader.readline(), READ_TIMEOUT_S)
        return line.decode().rstrip("\n")

    async def ended(self) -> bool:
        return await asyncio.wait_for(self.reader.read(1), READ_TIMEOUT_S) == b""


@asynccontextmanager
async def stream(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=tls)
    try:
        yield Stream(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("gt06", "modbus")}


@pytest.fixture(scope="module")
def shared_nats() -> Iterator[NatsServer]:
    """With JetStream, which the reference extensions need."""
    with NatsServer(jetstream=True) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer, ports: dict[str, int]) -> Iterator[GatewayProcess]:
    sections = protocols(
        gt06={"protocol": "gt06:Gt06", "port": ports["gt06"]},
        modbus={"protocol": "modbus:Modbus", "port": ports["modbus"], "options": ["count=2", "interval=1"]},
    )
    with GatewayProcess(shared_nats.url, merged(APPLICATION, sections), environment=PATHS) as process:
        yield process
        assert "Traceback" not in process.log, process.log


async def test_a_tracker_with_the_reference_extensions(
    shared_nats: NatsServer, gateway: GatewayProcess, ports: dict[str, int]
) -> None:
    url = shared_nats.url
    async with running("dcx", "epts", "cex", nats_url=url), stream(ports["gt06"]) as device:
        device.writer.write(LOGIN)
        assert await device.read(10) == gt06.encode(gt06.LOGIN, b"", 1)
        device.writer.write(POSITION)
        await until(lambda: gateway.count("messages_in", "gt06") >= 2, "the position")

        async def command() -> tuple[int, str, str]:
            return await kaa_ext(
                "command", "send", IMEI, "locate", '{"command": "DWXX#"}', "--wait", "--timeout", "60",
                nats_url=url,
            )  # fmt: skip

        sent = asyncio.create_task(command())
        packet = await device.read(22)
        assert packet == gt06.encode(gt06.COMMAND, b"\x09\0\0\0\x01DWXX#\0\x01", 1)
        device.writer.write(gt06.encode(gt06.REPLY, b"\x06\0\0\0\x01OK\0\x02", 2))
        code, output, errors = await sent
        assert code == 0, errors
        assert "OK" in output

        async def stored() -> str:
            return (await kaa_ext("data", "query", IMEI, nats_url=url))[1]

        assert "114.409285" in await stored()
    assert gateway.count("messages_out", "gt06") >= 1


async def test_a_meter(shared_nats: NatsServer, gateway: GatewayProcess, ports: dict[str, int]) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, stream(ports["modbus"]) as device:
        device.writer.write(modbus.encode(0, 1, modbus.REGISTRATION, b"meter-1"))
        for transaction in (1, 2):
            # The second one is asked by the timer.
            assert await device.read(12) == modbus.encode(transaction, 1, 3, b"\0\0\0\2")
            device.writer.write(modbus.encode(transaction, 1, 3, bytes([4, 0, 7, 1, transaction])))
            sample = (await cluster.next_requests(transaction))[-1]
            assert sample.fields["endpointId"] == "meter-1"
            assert json.loads(sample.fields["payload"]) == {"r0": 7, "r1": 256 + transaction}
        await cluster.push("meter-1", b"513", resourcePath="/registers/5")
        while (frame := await device.read(12))[7] != modbus.WRITE_SINGLE_REGISTER:
            pass
        assert frame[8:] == bytes([0, 5, 2, 1])


async def test_a_violation_is_counted_and_ends_one_connection(
    gateway: GatewayProcess, ports: dict[str, int]
) -> None:
    async with stream(ports["gt06"]) as device, stream(ports["gt06"]) as other:
        device.writer.write(LOGIN[:-4] + b"\0\0\r\n")
        assert await device.ended()
        assert gateway.count("events", "closed", "gt06_wrong_crc") == 1
        other.writer.write(LOGIN)
        assert await other.read(10) == gt06.encode(gt06.LOGIN, b"", 1)


async def over_dtls(port: int, pki: Pki) -> None:
    client = DtlsClient(port, issued=pki.device, ca_file=pki.authority.file)
    try:
        await client.handshake()
        client.send(b"login t3")
        assert await client.receive() == b"identified t3\n"
        client.send(b"bye")
        assert await client.receive() == b"bye\n"
        assert await client.receive() == b""
    finally:
        client.close()


async def test_tls_dtls_reload_and_the_end(nats_server: NatsServer, tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    tls, dtls = pki.section(), pki.section()
    sections = protocols(
        lines={"protocol": LINES, "enabled": False, "tls": tls},
        datagrams={"protocol": DATAGRAMS, "transport": "udp", "enabled": False, "dtls": dtls},
    )
    with GatewayProcess(nats_server.url, sections, environment=PATHS) as gateway:
        context = ssl.create_default_context(cafile=str(pki.authority.file))
        context.check_hostname = False
        await over_dtls(dtls["port"], pki)
        async with Cluster(nats_server.url, "dcx") as cluster, stream(tls["port"], context) as device:
            device.writer.write(b"login t1\nconfirm dcx/json 1\n")
            assert await device.line() == "identified t1"
            assert await device.line() == "confirmed 1"
            assert (await cluster.request()).fields["payload"] == b"1"
            document = gateway.document_with(protocols(lines={"options": ["shout=true"]}))
            gateway.config_path.write_text(json.dumps(document), encoding="utf-8")
            await until(lambda: gateway.count("config_reloads", "applied") == 1, "the new options")
            async with stream(tls["port"], context) as loud:
                loud.writer.write(b"login t2\n")
                assert await loud.line() == "IDENTIFIED T2"
            gateway.terminate()
            assert await device.line() == "stopping"
            assert await device.ended()
        assert gateway.stop() == 0
