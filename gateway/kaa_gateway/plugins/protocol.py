"""DeviceProtocol, the base class of a device protocol of one's own.

A protocol object is one connection (TCP) or one peer address (UDP). It is sans-IO: it is given the messages of a
device, and says what to publish and what to send. It has no socket, no task and no clock. docs/protocols.md has the
contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kaa_gateway.plugins.link import DeviceLink
    from kaa_gateway.plugins.values import Answer, Push, Refusal

OptionValue = str | int | float | bool


class DeviceProtocol:
    """One device. Override `receive`, for a protocol over TCP `message_size` too, and the events that matter."""

    options_with_defaults: ClassVar[Mapping[str, OptionValue]] = {}
    """The options of the protocol with their defaults; a value of the configuration has the type of its default."""

    reasons: ClassVar[tuple[str, ...]] = ()
    """The reasons of `Violation` and `close`: snake_case names, 32 at most."""

    examples: ClassVar[tuple[bytes, ...]] = ()
    """Messages of real devices: `kaa-gateway protocol fuzz` begins with them."""

    def __init__(self, link: DeviceLink, options: Mapping[str, Any]) -> None:
        self._link = link
        self.options = options

    # ------------------------------------------------------------ what a protocol implements

    @classmethod
    def message_size(cls, data: bytes, at: int) -> int:
        """Return the size of the message that begins at `data[at]`, or 0 if more bytes are needed to know it.

        The size may be larger than what is there: the gateway waits for the rest. For TCP only; a datagram is one
        message. Without this method, a message is whatever was read at once.
        """
        return len(data) - at

    def opened(self) -> None:
        """Handle the begin of the connection, or the first datagram of an address."""

    def receive(self, message: bytes) -> None:
        """Handle one whole message of the device."""
        raise NotImplementedError

    def identified(self, token: str) -> None:
        """Handle that `token` is good: the device may be told so."""

    def rejected(self, token: str, refusal: Refusal) -> None:
        """Handle that `token` was refused. By default, this ends the connection."""
        self.close()

    def confirmed(self, reference: Any) -> None:
        """Handle that NATS has the message that was published with this reference."""

    def refused(self, reference: Any, refusal: Refusal) -> None:
        """Handle that the message that was published with this reference goes nowhere."""

    def answered(self, reference: Any, answer: Answer) -> None:
        """Handle the answer to the request that was made with this reference. Each request gets exactly one."""

    def pushed(self, push: Push) -> bool:
        """Handle a message that an extension sends unasked. Return False if this device cannot be told it."""
        return False

    def timer(self) -> None:
        """Handle that the time of `set_timer` is over."""

    def stopping(self) -> None:
        """Handle that the gateway stops: the last chance to send something."""

    def closed(self) -> None:
        """Handle the end. Nothing can be sent or published any more."""

    # ------------------------------------------------------------ what a protocol does

    def publish(self, path: str, payload: bytes, reference: Any = None, *, token: str | None = None) -> None:
        """Publish a message for an extension.

        `path` is `<extension instance>/<resource path>`; the gateway puts the application version and the token of
        the last `identify` in, or `token`. A path that begins with `kp1/` is taken as it is. With a reference, exactly
        one of `confirmed` and `refused` follows; without one, the message is sent at most once, and nothing follows.
        """
        self._link.publish(path, payload, reference, token)

    def request(self, path: str, payload: bytes, reference: Any = None, *, token: str | None = None) -> None:
        """Publish a message whose answer the device needs; `answered` follows."""
        self._link.request(path, payload, reference, token)

    def identify(self, token: str, app_version: str | None = None) -> None:
        """Ask which endpoint a token stands for. Exactly one of `identified` and `rejected` follows, perhaps late.

        From now on, `publish` and `request` use the token; their messages wait until it is known. A device that speaks
        for several endpoints calls this once for each. `app_version` is the configured one by default.
        """
        self._link.identify(token, app_version)

    def send(self, data: bytes) -> None:
        """Send bytes to the device: over UDP, one datagram."""
        self._link.send(data)

    def close(self, reason: str | None = None) -> None:
        """End the connection after what was sent. `reason` is one of `reasons`; it is counted."""
        self._link.close(reason)

    def set_timer(self, seconds: float | None) -> None:
        """Have `timer` called once, in so many seconds, instead of when it was set for before; None: never."""
        self._link.set_timer(seconds)
