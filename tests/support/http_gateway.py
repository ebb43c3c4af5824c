"""A gateway with its HTTP port open, its extension played by the test, and a client that speaks raw bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from kaa_gateway.app.worker import Worker
from kaa_gateway.bus import subjects
from kaa_gateway.bus.flushing import flush
from kaa_gateway.config import AppVersion, Config, ExtensionInstance
from kaa_gateway.config.keys import (
    Coap,
    Http,
    IdentitySettings,
    Limits,
    Mqtt,
    MqttTcp,
    Nats,
    Server,
    Service,
    Transports,
    Udp,
)
from kaa_gateway.wire.esp import ClientData, decode_client_data, encode_extension_data
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.nats import HOST, NatsServer

WAIT_S = 20.0
APP_VERSION = "app-v1"
EXTENSIONS = {"dcx": True, "tsx": False, "absent": True}
"""Extension instance -> whether it has endpoints. Nobody serves `absent`."""


def post(path: str = "/kp1/app-v1/dcx/token/json", body: bytes = b"", fields: str = "") -> bytes:
    """Return the bytes of a POST with Content-Length; `fields` are further header lines, each with its CRLF."""
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Reply:
    """One response as it came over the wire."""

    status: int
    phrase: str
    fields: dict[str, str]
    body: bytes = b""


class RawClient:
    """A TCP connection to the gateway, and the responses that come over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection(HOST, port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.writer.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, to_head: bool = False) -> Reply:
        """Return the next response, interim ones too."""
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
            status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            version, status, phrase = status_line.split(" ", 2)
            assert version == "HTTP/1.1"
            fields = dict(line.split(": ", 1) for line in lines)
            assert len(fields) == len(lines)
            length = 0 if to_head else int(fields.get("Content-Length", "0"))
            return Reply(int(status), phrase, fields, await self.reader.readexactly(length))

    async def rest(self) -> bytes:
        """Return what comes until the gateway ends the connection."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()


@dataclass
class ExtensionDouble:
    """The extensions: take ClientData, and answer when the test says so."""

    nats: Client
    requests: asyncio.Queue[tuple[ClientData, str]] = field(default_factory=asyncio.Queue)
    echoes: bool = False

    async def take(self, message: Msg) -> None:
        request = decode_client_data(message.data)
        if self.echoes:
            await self.answer((request, message.reply), request.payload)
        else:
            self.requests.put_nowait((request, message.reply))

    async def request(self) -> tuple[ClientData, str]:
        """Return the next ClientData, with the subject that its answer goes to."""
        async with asyncio.timeout(WAIT_S):
            return await self.requests.get()

    async def answer(
        self,
        request: tuple[ClientData, str],
        payload: bytes | None = None,
        status: int = 200,
        phrase: str | None = None,
    ) -> None:
        data, reply = request
        datum = encode_extension_data(
            data.correlation_id, data.timestamp, 0, data.app_version_name, "dcx", data.endpoint_id,
            data.resource_path, data.request_id, payload, status, phrase,
        )  # fmt: skip
        await self.nats.publish(reply, datum)
        await flush(self.nats)


@dataclass
class HttpGateway:
    """A running worker, and the extensions behind it."""

    worker: Worker
    extension: ExtensionDouble
    port: int

    async def client(self) -> RawClient:
        return await RawClient.connect(self.port)

    def counted(self, event: str, reason: str) -> int:
        return self.worker.counters.by_reason().get((event, reason), 0)


@asynccontextmanager
async def running_gateway(
    server: NatsServer,
    *,
    identity: IdentitySettings | None = None,
    limits: Limits | None = None,
    graceful_shutdown: float = 30,
    **settings: Any,
) -> AsyncIterator[HttpGateway]:
    """Yield a worker with HTTP only; `settings` are those of `kaa.kpc.transports.http`."""
    config = Config(
        service=Service(graceful_shutdown=graceful_shutdown),
        server=Server(port=0),
        transports=Transports(
            bind_address=HOST,
            mqtt=Mqtt(tcp=MqttTcp(enabled=False)),
            http=Http(port=0, **settings),
            coap=Coap(enabled=False),
            udp=Udp(enabled=False),
        ),
        nats=Nats(urls=(server.url,)),
        identity=identity or IdentitySettings(),
        limits=limits or Limits(),
        app_versions={
            APP_VERSION: AppVersion(name=APP_VERSION, application="app", allowed=frozenset(EXTENSIONS))
        },
        extension_instances={
            name: ExtensionInstance(name=name, endpoint_aware=aware) for name, aware in EXTENSIONS.items()
        },
    )
    nats = Client()
    await nats.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=1)
    extension = ExtensionDouble(nats)
    for name in ("dcx", "tsx"):
        await nats.subscribe(subjects.service(name, "esp", subjects.CLIENT_DATA), cb=extension.take)
    await flush(nats)
    worker = Worker(config)
    try:
        async with asyncio.timeout(WAIT_S):
            await worker.start()
        yield HttpGateway(worker, extension, worker.ports["http"])
    finally:
        await worker.stop()
        await nats.close()
