"""Device protocols of one's own: what a plug-in is written with. See docs/protocols.md."""

from kaa_gateway.plugins.protocol import DeviceProtocol
from kaa_gateway.plugins.values import Answer, Push, Refusal, Violation

__all__ = ["Answer", "DeviceProtocol", "Push", "Refusal", "Violation"]
