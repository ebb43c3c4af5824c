"""A double of the gateway and its devices: sends requests to extensions, and takes their answers and pushes."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from kaa_gateway.bus import subjects
from kaa_gateway.bus.elce import CONNECTED_EVENT, DISCONNECTED_EVENT, event_subject
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import decode_extension_data, encode_client_data
from nats.aio.msg import Msg

from kaa_ext.sdk import payloads
from kaa_ext.sdk.requests import Response
from kaa_ext.testing.waiting import TIMEOUT_S, until

_decode_json = payloads.decoder(Any)


class Push(NamedTuple):
    """A push to an endpoint. `subject` is that of all gateway replicas, or of one."""

    endpoint_id: str | None
    resource_path: str
    payload: bytes
    status_code: int
    push_id: str
    subject: str

    def json(self) -> Any:
        """Return the decoded payload."""
        return _decode_json(self.payload)


class Bus(Protocol):
    """The operations of NATS that a gateway double needs."""

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Send a message."""

    async def subscribe(self, subject: str, callback: Callable[[Msg], Any]) -> None:
        """Call a plain function for each message on a subject."""


class Gateway:
    """A double of a gateway replica and all its devices. Made by `offline` and `online`.

    `pushes` has the pushes to endpoints, in order.
    """

    def __init__(self, bus: Bus, instance: str, replica_id: str) -> None:
        self.replica_id = replica_id
        self.pushes: list[Push] = []
        self._bus = bus
        self._instance = instance
        self._reply = subjects.replica(replica_id, "esp", subjects.EXTENSION_DATA)
        self._answers: dict[str, asyncio.Future[Response]] = {}
        self._request_ids = itertools.count(1)

    async def open(self) -> None:
        """Subscribe to the messages of extensions."""
        for subject in (self._reply, subjects.service(self._instance, "esp", subjects.EXTENSION_DATA)):
            await self._bus.subscribe(subject, self._receive)

    async def request(
        self, extension: str, resource_path: str, payload: object = b"", **fields: Any
    ) -> Response:
        """Send a message of a device to an extension instance, and return the answer.

        `payload` is bytes, or a value that becomes JSON. `fields` may have `endpoint_id`, `app_version_name`,
        `timeout`.
        """
        correlation_id = str(uuid4())
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._answers[correlation_id] = answer
        try:
            await self.send(
                extension, resource_path, payload, correlation_id=correlation_id,
                request_id=next(self._request_ids), **fields,
            )  # fmt: skip
            async with asyncio.timeout(TIMEOUT_S):
                return await answer
        finally:
            del self._answers[correlation_id]

    async def send(
        self,
        extension: str,
        resource_path: str,
        payload: object = b"",
        *,
        endpoint_id: str | None = "endpoint",
        app_version_name: str = "app_v1",
        request_id: int | None = None,
        correlation_id: str | None = None,
        timeout: int = 0,
    ) -> None:
        """Send a message of a device that does not wait for an answer."""
        datum = encode_client_data(
            correlation_id or str(uuid4()), now_ms(), timeout, app_version_name, endpoint_id, resource_path,
            request_id, payload if isinstance(payload, bytes) else payloads.encode(payload),
        )  # fmt: skip
        await self._bus.publish(subjects.service(extension, "esp", subjects.CLIENT_DATA), datum, self._reply)

    async def connect(self, *endpoint_ids: str, app_version_name: str = "app_v1") -> None:
        """Publish the 9/ELCE event that these endpoints have connected."""
        await self._connectivity(endpoint_ids, app_version_name, connected=True)

    async def disconnect(self, *endpoint_ids: str, app_version_name: str = "app_v1") -> None:
        """Publish the 9/ELCE event that these endpoints have disconnected."""
        await self._connectivity(endpoint_ids, app_version_name, connected=False)

    async def next_pushes(self, count: int, *, after: int = 0) -> list[Push]:
        """Wait for the `count` pushes after the first `after`, and return them."""
        await until(lambda: len(self.pushes) >= after + count, f"{after + count} pushes")
        return self.pushes[after : after + count]

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish a message of another service."""
        await self._bus.publish(subject, payload, reply)

    async def listen(self, subject: str) -> list[Msg]:
        """Return a list that receives the messages on a subject from now on."""
        received: list[Msg] = []
        await self._bus.subscribe(subject, received.append)
        return received

    async def _connectivity(self, endpoint_ids: Sequence[str], app_version: str, *, connected: bool) -> None:
        kind = CONNECTED_EVENT if connected else DISCONNECTED_EVENT
        datum = kind.encode(
            endpoints=dict.fromkeys(endpoint_ids, app_version), originatorReplicaId=self.replica_id
        )
        await self._bus.publish(event_subject(self._instance, connected=connected), datum)

    def _receive(self, message: Msg) -> None:
        data = decode_extension_data(message.data)
        answer = self._answers.get(data.correlation_id)
        if answer is None:
            self.pushes.append(
                Push(
                    data.endpoint_id,
                    data.resource_path,
                    data.payload or b"",
                    data.status_code,
                    data.correlation_id,
                    message.subject,
                )
            )
        elif not answer.done():
            answer.set_result(Response(data.status_code, data.payload, data.reason_phrase))
