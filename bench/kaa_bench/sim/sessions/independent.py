"""Devices on independent clients: aiomqtt, aiocoap, aiohttp. They show that these work; they are not for load."""

import asyncio
import contextlib
import ssl

import aiocoap
import aiohttp
import aiomqtt
from aiocoap import error as aiocoap_error

from kaa_bench.packets import MqttVersion
from kaa_bench.sim.sessions import SessionError

KEEP_ALIVE_S = 60


class AiomqttSession:
    """See `Session`."""

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        *,
        qos: int,
        timeout: float,
        tls: ssl.SSLContext | None,
        version: MqttVersion,
    ) -> None:
        self._address = host, port
        self._client_id = client_id
        self._timeout = timeout
        self._tls = tls
        self._qos = qos
        self._protocol = aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311
        self._client: aiomqtt.Client | None = None

    async def connect(self) -> None:
        """See `Session.connect`."""
        host, port = self._address
        client = aiomqtt.Client(
            host,
            port,
            identifier=self._client_id,
            keepalive=KEEP_ALIVE_S,
            timeout=self._timeout,
            tls_context=self._tls,
            protocol=self._protocol,
        )
        try:
            await client.__aenter__()
        except aiomqtt.MqttError as error:
            raise SessionError(f"connect: {type(error).__name__}") from None
        self._client = client

    async def send(self, path: str, payload: bytes) -> None:
        """See `Session.send`."""
        if self._client is None:
            raise SessionError("connection lost")
        try:
            await self._client.publish(path, payload, qos=self._qos)
        except aiomqtt.MqttError as error:
            raise SessionError(type(error).__name__) from None

    async def listen(self, path: str) -> None:
        """See `Session.listen`: scenarios do not use it with these clients."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Session.close`."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)


class AiocoapSession:
    """See `Session`. Each device has its own context, and so its own source address."""

    def __init__(self, host: str, port: int, *, timeout: float) -> None:
        self._root = f"coap://{host}:{port}/"
        self._timeout = timeout
        self._context: aiocoap.Context | None = None

    async def connect(self) -> None:
        """See `Session.connect`."""
        self._context = await aiocoap.Context.create_client_context()

    async def send(self, path: str, payload: bytes) -> None:
        """See `Session.send`."""
        if self._context is None:
            raise SessionError("connection lost")
        message = aiocoap.Message(code=aiocoap.POST, uri=self._root + path, payload=payload)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._context.request(message).response
        except TimeoutError:
            raise SessionError("not answered in time") from None
        except aiocoap_error.Error as error:
            raise SessionError(type(error).__name__) from None
        if not response.code.is_successful():
            raise SessionError(f"code {response.code.dotted}")

    async def listen(self, path: str) -> None:
        """See `Session.listen`: scenarios do not use it with these clients."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Session.close`."""
        context, self._context = self._context, None
        if context is not None:
            await context.shutdown()


class AiohttpSession:
    """See `Session`."""

    def __init__(self, host: str, port: int, *, timeout: float) -> None:
        self._root = f"http://{host}:{port}/"
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def connect(self) -> None:
        """See `Session.connect`: the first request connects."""
        self._session = aiohttp.ClientSession(timeout=self._timeout)

    async def send(self, path: str, payload: bytes) -> None:
        """See `Session.send`."""
        if self._session is None:
            raise SessionError("connection lost")
        try:
            async with self._session.post(self._root + path, data=payload) as response:
                status = response.status
        except TimeoutError:
            raise SessionError("not answered in time") from None
        except aiohttp.ClientError as error:
            raise SessionError(type(error).__name__) from None
        if status // 100 != 2:
            raise SessionError(f"status {status}")

    async def listen(self, path: str) -> None:
        """See `Session.listen`: scenarios do not use it with these clients."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Session.close`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
