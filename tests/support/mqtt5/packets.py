"""The packets of MQTT 5 as values. Each may have properties.

Source: MQTT 5.0 (OASIS Standard), chapter 3; the docstrings cite its sections.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.support.mqtt5.properties import Properties, Property


@dataclass(frozen=True)
class Packet:
    """A control packet, with its properties in their order."""

    properties: Properties = field(default=(), kw_only=True)

    def get(self, identifier: Property) -> Any:
        """Return the value of a property, the first if there are several, or None."""
        return next((value for known, value in self.properties if known is identifier), None)

    def all(self, identifier: Property) -> list[Any]:
        """Return the values of a property that may be there several times."""
        return [value for known, value in self.properties if known is identifier]


@dataclass(frozen=True)
class Will(Packet):
    """3.1.3.2 to 3.1.3.4."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True)
class Connect(Packet):
    """3.1; keep_alive in seconds."""

    client_id: str = ""
    clean_start: bool = True
    keep_alive: int = 0
    will: Will | None = None
    user_name: str | None = None
    password: bytes | None = None


@dataclass(frozen=True)
class Connack(Packet):
    """3.2."""

    session_present: bool = False
    reason_code: int = 0


@dataclass(frozen=True)
class Publish(Packet):
    """3.3; packet_id is 0 at QoS 0."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False


@dataclass(frozen=True)
class Puback(Packet):
    """3.4."""

    packet_id: int
    reason_code: int = 0


@dataclass(frozen=True)
class Pubrec(Packet):
    """3.5."""

    packet_id: int
    reason_code: int = 0


@dataclass(frozen=True)
class Pubrel(Packet):
    """3.6."""

    packet_id: int
    reason_code: int = 0


@dataclass(frozen=True)
class Pubcomp(Packet):
    """3.7."""

    packet_id: int
    reason_code: int = 0


@dataclass(frozen=True)
class Subscribe(Packet):
    """3.8: pairs of a topic filter and its Subscription Options."""

    packet_id: int
    topic_filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Suback(Packet):
    """3.9."""

    packet_id: int
    reason_codes: tuple[int, ...]


@dataclass(frozen=True)
class Unsubscribe(Packet):
    """3.10."""

    packet_id: int
    topic_filters: tuple[str, ...]


@dataclass(frozen=True)
class Unsuback(Packet):
    """3.11."""

    packet_id: int
    reason_codes: tuple[int, ...]


@dataclass(frozen=True)
class Pingreq(Packet):
    """3.12."""


@dataclass(frozen=True)
class Pingresp(Packet):
    """3.13."""


@dataclass(frozen=True)
class Disconnect(Packet):
    """3.14."""

    reason_code: int = 0


@dataclass(frozen=True)
class Auth(Packet):
    """3.15."""

    reason_code: int = 0


NO_LOCAL = 0x04
"""A flag of the Subscription Options (3.8.3.1), beside the QoS in bits 0 and 1."""
RETAIN_AS_PUBLISHED = 0x08
DO_NOT_SEND_RETAINED = 0x20
"""Retain Handling 2."""
