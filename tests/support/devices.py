"""A device on other people's clients (aiomqtt, httpx, aiocoap), the same to a test over each transport.

`ask` sends a payload to a resource path of an extension instance; returns the status and payload of the answer.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol

import aiocoap
import aiomqtt
import httpx
from kaa_gateway.tasks import end_tasks

from tests.support.json_schemas import validate
from tests.support.nats import HOST

APP_VERSION = "app_v1"
TIMEOUT_S = 30.0
REPEAT_S = 3.0
"""How long a device waits before it repeats a request."""
UNSERVED = (503, 504)
"""The statuses of requests that no extension has answered."""
COAP_STATUS = {
    "2.04": 200, "2.05": 200, "4.00": 400, "4.01": 401, "4.03": 403, "4.04": 404, "4.13": 413, "4.22": 422,
    "4.29": 429, "5.00": 500, "5.02": 502, "5.03": 503, "5.04": 504,
}  # fmt: skip
"""CoAP code to the status that it stands for (docs/coap.md); 4.10 and others are not there."""


class Answer(NamedTuple):
    """The answer that a device gets. The reason phrase is None where the transport has none."""

    status: int
    payload: bytes
    reason_phrase: str | None = None

    def json(self) -> Any:
        return json.loads(self.payload)


class Device(Protocol):
    """One endpoint, whose token is its ID."""

    token: str

    async def ask(self, extension: str, resource_path: str, payload: bytes = b"") -> Answer: ...


class MqttDevice:
    """A device on a MQTT connection. `pushes` holds what came unasked, as (resource path, payload)."""

    def __init__(self, client: aiomqtt.Client, token: str) -> None:
        self.token = token
        self.pushes: list[tuple[str, bytes]] = []
        self._client = client
        self._request_ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Answer]] = {}

    async def ask(
        self, extension: str, resource_path: str, payload: bytes = b"", *, timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Send a request, and return its answer. Raise TimeoutError if none comes in time."""
        topic = f"kp1/{APP_VERSION}/{extension}/{self.token}{resource_path}/{next(self._request_ids)}"
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[topic] = answer
        try:
            await self._client.publish(topic, payload, qos=1)
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            del self._waiting[topic]

    async def ask_until_served(self, extension: str, resource_path: str, payload: bytes = b"") -> Answer:
        """Repeat a request until an extension answers it, as a device does while replicas come and go.

        NATS may have given a request to a replica that has just died: nothing answers that one.
        """
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                with suppress(TimeoutError):
                    answer = await self.ask(extension, resource_path, payload, timeout_s=REPEAT_S)
                    if answer.status not in UNSERVED:
                        return answer

    def pushed_paths(self) -> set[str]:
        """Return the resource paths of what came unasked."""
        return {path for path, _ in self.pushes}

    async def read(self) -> None:
        """Sort what comes into answers and pushes."""
        async for message in self._client.messages:
            topic, _, outcome = message.topic.value.rpartition("/")
            payload = bytes(message.payload)
            answer = self._waiting.get(topic)
            if answer is None:
                self.pushes.append(("/" + topic.split("/", 4)[4], payload))
            elif outcome == "status":
                answer.set_result(Answer(200, payload))
            else:
                validate("0001-error-response", json.loads(payload))
                error = json.loads(payload)
                answer.set_result(Answer(error["statusCode"], b"", error["reasonPhrase"]))


@asynccontextmanager
async def mqtt_device(port: int, token: str) -> AsyncIterator[MqttDevice]:
    """Yield a connected device."""
    async with aiomqtt.Client(HOST, port, timeout=TIMEOUT_S) as client:
        device = MqttDevice(client, token)
        reading = asyncio.create_task(device.read())
        try:
            yield device
        finally:
            await end_tasks([reading])


class HttpDevice:
    """A device that posts."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self.token = token
        self._client = client

    async def ask(self, extension: str, resource_path: str, payload: bytes = b"") -> Answer:
        url = f"/kp1/{APP_VERSION}/{extension}/{self.token}{resource_path}"
        response = await self._client.post(url, content=payload)
        return Answer(response.status_code, response.content, response.reason_phrase)


@asynccontextmanager
async def http_device(port: int, token: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[HttpDevice]:
    """Yield a device with a connection that it keeps."""
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=timeout_s) as client:
        yield HttpDevice(client, token)


class CoapDevice:
    """A device that posts confirmable messages, and observes."""

    def __init__(self, context: aiocoap.Context, port: int, token: str) -> None:
        self.token = token
        self._context = context
        self._base = f"coap://{HOST}:{port}/kp1/{APP_VERSION}"

    async def ask(self, extension: str, resource_path: str, payload: bytes = b"") -> Answer:
        uri = f"{self._base}/{extension}/{self.token}{resource_path}"
        message = aiocoap.Message(code=aiocoap.Code.POST, uri=uri, payload=payload)
        response = await asyncio.wait_for(self._context.request(message).response, TIMEOUT_S)
        code = response.code.dotted
        if code.startswith("2."):
            return Answer(COAP_STATUS[code], response.payload)
        return Answer(COAP_STATUS[code], b"", response.payload.decode())

    def observe(self, extension: str, resource_path: str) -> Any:
        """Observe, and return aiocoap's request: `response` is its first answer, `observation` gives the others."""
        uri = f"{self._base}/{extension}/{self.token}{resource_path}"
        return self._context.request(aiocoap.Message(code=aiocoap.Code.GET, uri=uri, observe=0))


@asynccontextmanager
async def coap_device(port: int, token: str) -> AsyncIterator[CoapDevice]:
    """Yield a device with a socket of its own."""
    context = await aiocoap.Context.create_client_context(transports=["simple6"])
    try:
        yield CoapDevice(context, port, token)
    finally:
        await context.shutdown()
