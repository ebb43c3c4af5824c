"""The interface by which the sessions of a bridge tell it what has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kaa_gateway.bridge.session import BridgedEndpoint


class BridgeEvents(Protocol):
    """What a BridgedEndpoint calls."""

    def confirmed(self, reference: Any) -> None:
        """Handle that NATS has the message with this reference, or that it was refused."""

    def resumed(self) -> None:
        """Handle that the uplink takes messages again."""

    def ended(self, session: BridgedEndpoint) -> None:
        """Handle that a session ends."""

    def send(self, topic: bytes, payload: bytes) -> bool:
        """Publish to the broker; return False if it cannot be kept."""
