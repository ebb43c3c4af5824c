"""The messages between services that extensions send and take, a module a protocol.

Their codec, and the protocols that the gateway speaks as well, stand in kaa_gateway.bus. `MessageType` declares a
message of your own.
"""

from kaa_gateway.bus.messages import MessageType

__all__ = ["MessageType"]
