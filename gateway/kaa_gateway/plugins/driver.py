"""A driver for tests of a protocol: it stands in the place of the gateway, without sockets, NATS or time.

A test feeds bytes, and looks at what the protocol has sent and published. What the gateway would tell later (a good
token, a confirmation, an answer), the test says itself. The rules are those of the gateway: a Violation or a fault ends
the connection, and each token, reference and request is answered once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kaa_gateway.plugins.values import Answer, Push, Refusal, Violation

if TYPE_CHECKING:
    from kaa_gateway.plugins.protocol import DeviceProtocol


@dataclass(frozen=True)
class Message:
    """A message that the protocol has published."""

    path: str
    payload: bytes
    reference: Any = None
    token: str | None = None
    is_request: bool = False


@dataclass(eq=False)
class Driver:
    """One device of a protocol. `options` replace the defaults of its class."""

    protocol_class: type[DeviceProtocol]
    options: dict[str, Any] = field(default_factory=dict)
    message_size_max: int = 4096
    without_endpoints: frozenset[str] = frozenset()
    """Extension instances whose resource paths have no token."""

    def __post_init__(self) -> None:
        self.sent: list[bytes] = []
        """What was sent to the device, one `send` each."""
        self.published: list[Message] = []
        self.closed_by: str | None = None
        """Why the connection has ended: a reason, `closed`, `message_too_large`; None while it is open."""
        self.timer: float | None = None
        self.asked: list[str] = []
        """Tokens that wait for `accept_token` or `reject_token`."""
        self._token: str | None = None
        self._input = b""
        self._waiting: list[Message] = []
        options = {**self.protocol_class.options_with_defaults, **self.options}
        self.device = self.protocol_class(self, options)
        self.device.opened()

    # ------------------------------------------------------------ what the gateway does

    def feed(self, data: bytes) -> None:
        """Give bytes of the device to the protocol. A Violation closes the connection; a fault is raised."""
        self._input += data
        while self._input and self.closed_by is None:
            size = self.protocol_class.message_size(self._input, 0)
            assert size >= 0, f"message_size returned {size}"
            if size > self.message_size_max or (size == 0 and len(self._input) >= self.message_size_max):
                self._end("message_too_large")
                return
            if size == 0 or size > len(self._input):
                return
            message, self._input = self._input[:size], self._input[size:]
            self._tell(self.device.receive, message)

    def feed_datagram(self, data: bytes) -> None:
        """Give one datagram to the protocol."""
        self._tell(self.device.receive, data)

    def accept_token(self) -> None:
        """Say that the oldest token that was asked for is good."""
        self._tell(self.device.identified, self.asked.pop(0))

    def reject_token(self, status: int = 401, reason: str = "Unknown token") -> None:
        """Refuse the oldest token that was asked for."""
        self._tell(self.device.rejected, self.asked.pop(0), Refusal(status, reason))

    def confirm(self) -> None:
        """Confirm the oldest message with a reference."""
        self._tell(self.device.confirmed, self._take(request=False).reference)

    def refuse(self, status: int = 503, reason: str = "NATS is not connected") -> None:
        """Refuse the oldest message with a reference."""
        self._tell(self.device.refused, self._take(request=False).reference, Refusal(status, reason))

    def answer(self, payload: bytes = b"", status: int = 200, reason: str = "OK") -> None:
        """Answer the oldest request."""
        self._tell(self.device.answered, self._take(request=True).reference, Answer(status, reason, payload))

    def push(self, path: str, payload: bytes = b"", *, extension: str = "cex", status: int = 200) -> bool:
        """Push a message to the device; return whether it was taken."""
        push = Push(extension, path, self._token or "", status, "OK", payload)
        return self._tell(self.device.pushed, push) is not False

    def run_timer(self) -> None:
        """Let the timer run out, if one is set."""
        if self.timer is not None:
            self.timer = None
            self._tell(self.device.timer)

    def stop(self) -> None:
        """Stop the gateway."""
        self._tell(self.device.stopping)
        self._end("stopped")

    def unconfirmed(self) -> int:
        """Return how many messages wait for `confirm` or `refuse`."""
        return sum(not message.is_request for message in self._waiting)

    def unanswered(self) -> int:
        """Return how many requests wait for `answer`."""
        return sum(message.is_request for message in self._waiting)

    # ------------------------------------------------------------ DeviceLink

    def publish(self, path: str, payload: bytes, reference: Any, token: str | None) -> None:
        """Note a message."""
        self._add(Message(path, payload, reference, token))

    def request(self, path: str, payload: bytes, reference: Any, token: str | None) -> None:
        """Note a request."""
        self._add(Message(path, payload, reference, token, is_request=True))

    def identify(self, token: str, app_version: str | None) -> None:
        """Note a token."""
        if self.closed_by is None:
            self._token = token
            self.asked.append(token)

    def send(self, data: bytes) -> None:
        """Note what is sent."""
        assert isinstance(data, bytes), "send takes bytes"
        if self.closed_by is None:
            self.sent.append(data)

    def close(self, reason: str | None) -> None:
        """End the connection."""
        assert reason is None or reason in self.protocol_class.reasons, f"{reason!r} is not in `reasons`"
        self._end(reason or "closed")

    def set_timer(self, seconds: float | None) -> None:
        """Note the timer."""
        self.timer = seconds

    # ------------------------------------------------------------

    def _add(self, message: Message) -> None:
        assert isinstance(message.payload, bytes), "a payload is bytes"
        if self.closed_by is not None:
            return
        extension = message.path.partition("/")[0]
        has_token = message.token is not None or self._token is not None
        assert has_token or extension in ("kp1", *self.without_endpoints), "publish before identify"
        self.published.append(message)
        if message.is_request or message.reference is not None:
            self._waiting.append(message)

    def _take(self, *, request: bool) -> Message:
        message = next(each for each in self._waiting if each.is_request == request)
        self._waiting.remove(message)
        return message

    def _tell(self, method: Any, *arguments: Any) -> Any:
        if self.closed_by is not None:
            return None
        try:
            return method(*arguments)
        except Violation as error:
            if error.reason not in self.protocol_class.reasons:
                raise
            self._end(error.reason)
        return None

    def _end(self, reason: str) -> None:
        if self.closed_by is None:
            self.closed_by = reason
            self.device.closed()
