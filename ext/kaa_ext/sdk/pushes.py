"""The pushes of one replica: ExtensionData that no endpoint has requested.

Source: 4/ESP "Extension Service Protocol".
"""

from collections.abc import Awaitable, Mapping
from typing import Protocol
from uuid import uuid4

from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import encode_extension_data

from kaa_ext.sdk.errors import NotDelivered
from kaa_ext.sdk.push_options import PushOptions
from kaa_ext.sdk.push_outcome import UNKNOWN, PushOutcome
from kaa_ext.sdk.push_receipt import PushReceipt
from kaa_ext.sdk.receipts import Receipts


class Publish(Protocol):
    """Publishes a message, as Extension.publish does."""

    def __call__(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> Awaitable[None]:
        """Publish. Raise NotDelivered if NATS does not take the message."""


class Pushes:
    """Sends pushes of an extension instance. `reply` is the subject of its affinity, or empty."""

    def __init__(self, extension_name: str, replica_id: str, reply: str, publish: Publish) -> None:
        self.receipts = Receipts(replica_id)
        self._extension_name = extension_name
        self._reply = reply
        self._publish = publish

    async def send(
        self,
        subject: str,
        endpoint_id: str,
        resource_path: str,
        payload: bytes,
        *,
        receipt: bool,
        options: PushOptions,
    ) -> PushReceipt | None:
        """Send a push to a subject of the gateway. Return its receipt, or None if that is not wanted."""
        push_id = options.get("push_id") or str(uuid4())
        datum = encode_extension_data(
            push_id, now_ms(), int(options.get("timeout_s", 0) * 1000), options.get("app_version_name"),
            self._extension_name, endpoint_id, resource_path, None, payload, options.get("status_code", 200),
        )  # fmt: skip
        if not receipt:
            await self._publish(subject, datum, self._reply)
            return None
        expected = self.receipts.expect(push_id, one_worker=options.get("gateway_replica_id") is not None)
        try:
            await self._publish(subject, datum, self._reply, self.receipts.headers)
        except NotDelivered:
            expected.end(PushOutcome(UNKNOWN))
            raise
        return expected
