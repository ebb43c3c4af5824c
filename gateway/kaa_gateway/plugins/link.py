"""The interface by which a plug-in acts: the gateway implements it, and so does the driver of tests."""

from __future__ import annotations

from typing import Any, Protocol


class DeviceLink(Protocol):
    """One device, as its protocol object acts on it. `DeviceProtocol` has the meaning of each method."""

    def publish(self, path: str, payload: bytes, reference: Any, token: str | None) -> None:
        """Publish a message."""

    def request(self, path: str, payload: bytes, reference: Any, token: str | None) -> None:
        """Publish a request, whose answer is awaited."""

    def identify(self, token: str, app_version: str | None) -> None:
        """Ask the identity provider which endpoint a token stands for."""

    def send(self, data: bytes) -> None:
        """Send bytes to the device."""

    def close(self, reason: str | None) -> None:
        """End the connection."""

    def set_timer(self, seconds: float | None) -> None:
        """Set or clear the timer."""
