"""The error tree of the gateway.

Every error carries a `reason`: a short snake_case code that never contains data of a peer, because it is also the
label of the metric that counts the error.
"""

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it cannot decode; its own error is not that for text that is no UTF-8, or for
values that are nested too deeply."""


class GatewayError(Exception):
    """Base of all errors that the gateway raises on purpose.

    `reason` is the label of the metric, `detail` a sentence for people. Neither contains secrets.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ConfigError(GatewayError):
    """The configuration cannot be used; the message names the key path and what was expected."""


class ProtocolError(GatewayError):
    """A peer sent a malformed packet, or one that is illegal in this state. Ends its connection."""


class MalformedAvro(GatewayError):  # noqa: N818 - the field's word for it
    """An Avro datum is truncated, too long, or does not match its schema."""


class IdentityError(GatewayError):
    """A token or credentials were refused, or not checked in time. `status` is the HTTP status for the device."""

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.status = status


class HandshakeError(GatewayError):
    """The certificate of a client is not admitted, though TLS has verified it."""


class BusError(GatewayError):
    """The NATS connection could not be made or was refused."""
