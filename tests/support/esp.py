"""The gateway's side of 4/ESP, played by a nats-py client: sends ClientData, collects ExtensionData."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kaa_gateway.bus import subjects
from kaa_gateway.bus.flushing import flush
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import ExtensionData, decode_extension_data, encode_client_data
from nats.aio.client import Client
from nats.aio.msg import Msg

ANSWER_TIMEOUT_S = 20.0
POLL_S = 0.01


class GatewayDouble:
    """A replica of a gateway. `answers` holds what came back, as (NATS reply-to, ExtensionData), in order."""

    def __init__(self, url: str, *, instance: str = "kpc", replica_id: str = "double") -> None:
        self.answers: list[tuple[str, ExtensionData]] = []
        self.nats = Client()
        self._url = url
        self._instance = instance
        self._reply = subjects.replica(replica_id, "esp", subjects.EXTENSION_DATA)

    async def __aenter__(self) -> Self:
        await self.nats.connect(self._url, reconnect_time_wait=1, max_reconnect_attempts=-1)
        await self.nats.subscribe(self._reply, cb=self._collect)
        await self.nats.subscribe(
            subjects.service(self._instance, "esp", subjects.EXTENSION_DATA), cb=self._collect
        )
        await flush(self.nats)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.nats.close()

    async def send(
        self,
        extension: str,
        resource_path: str = "/json",
        payload: bytes = b"",
        *,
        request_id: int | None = 1,
        endpoint_id: str | None = "endpoint",
        timestamp: int | None = None,
        timeout: int = 0,
        subject: str | None = None,
        reply: str | None = None,
    ) -> None:
        """Publish a ClientData for an extension instance, with our replica as reply-to unless told."""
        datum = encode_client_data(
            "correlation", now_ms() if timestamp is None else timestamp, timeout, "app-v1", endpoint_id,
            resource_path, request_id, payload,
        )  # fmt: skip
        if subject is None:
            subject = subjects.service(extension, "esp", subjects.CLIENT_DATA)
        await self.nats.publish(subject, datum, self._reply if reply is None else reply)

    async def wait_for(self, count: int) -> list[ExtensionData]:
        """Return the first `count` answers, as soon as they are there."""
        await until(lambda: len(self.answers) >= count, f"{count} answers, got {len(self.answers)}")
        return [answer for _, answer in self.answers[:count]]

    async def ask(
        self, extension: str, resource_path: str = "/json", payload: bytes = b"", request_id: int = 1
    ) -> ExtensionData:
        """Send a request and return the next answer."""
        count = len(self.answers)
        await self.send(extension, resource_path, payload, request_id=request_id)
        return (await self.wait_for(count + 1))[count]

    async def _collect(self, message: Msg) -> None:
        self.answers.append((message.reply, decode_extension_data(message.data)))


async def until(condition: Callable[[], bool], what: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Return when the condition holds; an AssertionError naming `what` when it does not in time."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited for {what}"
        await asyncio.sleep(POLL_S)
