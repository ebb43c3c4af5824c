"""The properties of MQTT 5: their types, the packets that may have them, and their bytes.

Source: MQTT 5.0 (OASIS Standard), sections 1.5 and 2.2.2.
"""

from collections.abc import Iterable
from enum import Enum, IntEnum
from typing import Any

VARIABLE_MAX = 268_435_455


class PacketType(IntEnum):
    """2.1.2; WILL stands for the properties in the payload of a CONNECT."""

    WILL = 0
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Property(IntEnum):
    """The identifiers, table 2-4."""

    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


class Kind(Enum):
    """The data types of section 1.5."""

    BYTE = "byte"
    TWO_BYTES = "two byte integer"
    FOUR_BYTES = "four byte integer"
    VARIABLE = "variable byte integer"
    STRING = "UTF-8 encoded string"
    BINARY = "binary data"
    PAIR = "UTF-8 string pair"


_P, _T = Property, PacketType
_MESSAGE = (_T.PUBLISH, _T.WILL)
_ACKNOWLEDGEMENTS = (
    _T.CONNACK, _T.PUBACK, _T.PUBREC, _T.PUBREL, _T.PUBCOMP, _T.SUBACK, _T.UNSUBACK, _T.DISCONNECT, _T.AUTH,
)  # fmt: skip

TABLE: dict[Property, tuple[Kind, tuple[PacketType, ...]]] = {
    _P.PAYLOAD_FORMAT_INDICATOR: (Kind.BYTE, _MESSAGE),
    _P.MESSAGE_EXPIRY_INTERVAL: (Kind.FOUR_BYTES, _MESSAGE),
    _P.CONTENT_TYPE: (Kind.STRING, _MESSAGE),
    _P.RESPONSE_TOPIC: (Kind.STRING, _MESSAGE),
    _P.CORRELATION_DATA: (Kind.BINARY, _MESSAGE),
    _P.SUBSCRIPTION_IDENTIFIER: (Kind.VARIABLE, (_T.PUBLISH, _T.SUBSCRIBE)),
    _P.SESSION_EXPIRY_INTERVAL: (Kind.FOUR_BYTES, (_T.CONNECT, _T.CONNACK, _T.DISCONNECT)),
    _P.ASSIGNED_CLIENT_IDENTIFIER: (Kind.STRING, (_T.CONNACK,)),
    _P.SERVER_KEEP_ALIVE: (Kind.TWO_BYTES, (_T.CONNACK,)),
    _P.AUTHENTICATION_METHOD: (Kind.STRING, (_T.CONNECT, _T.CONNACK, _T.AUTH)),
    _P.AUTHENTICATION_DATA: (Kind.BINARY, (_T.CONNECT, _T.CONNACK, _T.AUTH)),
    _P.REQUEST_PROBLEM_INFORMATION: (Kind.BYTE, (_T.CONNECT,)),
    _P.WILL_DELAY_INTERVAL: (Kind.FOUR_BYTES, (_T.WILL,)),
    _P.REQUEST_RESPONSE_INFORMATION: (Kind.BYTE, (_T.CONNECT,)),
    _P.RESPONSE_INFORMATION: (Kind.STRING, (_T.CONNACK,)),
    _P.SERVER_REFERENCE: (Kind.STRING, (_T.CONNACK, _T.DISCONNECT)),
    _P.REASON_STRING: (Kind.STRING, _ACKNOWLEDGEMENTS),
    _P.RECEIVE_MAXIMUM: (Kind.TWO_BYTES, (_T.CONNECT, _T.CONNACK)),
    _P.TOPIC_ALIAS_MAXIMUM: (Kind.TWO_BYTES, (_T.CONNECT, _T.CONNACK)),
    _P.TOPIC_ALIAS: (Kind.TWO_BYTES, (_T.PUBLISH,)),
    _P.MAXIMUM_QOS: (Kind.BYTE, (_T.CONNACK,)),
    _P.RETAIN_AVAILABLE: (Kind.BYTE, (_T.CONNACK,)),
    _P.USER_PROPERTY: (
        Kind.PAIR,
        (*_MESSAGE, *_ACKNOWLEDGEMENTS, _T.CONNECT, _T.SUBSCRIBE, _T.UNSUBSCRIBE),
    ),
    _P.MAXIMUM_PACKET_SIZE: (Kind.FOUR_BYTES, (_T.CONNECT, _T.CONNACK)),
    _P.WILDCARD_SUBSCRIPTION_AVAILABLE: (Kind.BYTE, (_T.CONNACK,)),
    _P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: (Kind.BYTE, (_T.CONNACK,)),
    _P.SHARED_SUBSCRIPTION_AVAILABLE: (Kind.BYTE, (_T.CONNACK,)),
}
"""Table 2-4: the type of each property, and the packets that may have it."""

ZERO_OR_ONE = frozenset(
    {
        _P.PAYLOAD_FORMAT_INDICATOR, _P.REQUEST_PROBLEM_INFORMATION, _P.REQUEST_RESPONSE_INFORMATION, _P.MAXIMUM_QOS,
        _P.RETAIN_AVAILABLE, _P.WILDCARD_SUBSCRIPTION_AVAILABLE, _P.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
        _P.SHARED_SUBSCRIPTION_AVAILABLE,
    }
)  # fmt: skip
NOT_ZERO = frozenset({_P.SUBSCRIPTION_IDENTIFIER, _P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS, _P.MAXIMUM_PACKET_SIZE})

Properties = tuple[tuple[Property, Any], ...]
"""Properties in their order, the same one more than once if a test wants that."""


class ViolationError(AssertionError):
    """The server has sent what MQTT 5 forbids. The message names the statement or the section."""


def may_repeat(identifier: Property, packet_type: PacketType) -> bool:
    """Return whether a packet may have the property more than once."""
    return identifier is Property.USER_PROPERTY or (
        identifier is Property.SUBSCRIPTION_IDENTIFIER and packet_type is PacketType.PUBLISH
    )


# ---------------------------------------------------------------- encoding


def variable(value: int) -> bytes:
    """Encode a Variable Byte Integer (1.5.5)."""
    if not 0 <= value <= VARIABLE_MAX:
        raise ValueError(f"{value} is not a Variable Byte Integer")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def binary(value: bytes) -> bytes:
    """Encode Binary Data (1.5.6)."""
    return len(value).to_bytes(2, "big") + value


def string(value: str) -> bytes:
    """Encode a UTF-8 Encoded String (1.5.4)."""
    return binary(value.encode())


def encode_value(identifier: Property, value: Any) -> bytes:
    """Encode a value by the type of its property."""
    match TABLE[identifier][0]:
        case Kind.BYTE:
            return bytes([value])
        case Kind.TWO_BYTES:
            return int(value).to_bytes(2, "big")
        case Kind.FOUR_BYTES:
            return int(value).to_bytes(4, "big")
        case Kind.VARIABLE:
            return variable(value)
        case Kind.STRING:
            return string(value)
        case Kind.BINARY:
            return binary(value)
        case Kind.PAIR:
            name, text = value
            return string(name) + string(text)


def encode_properties(properties: Iterable[tuple[Property, Any]]) -> bytes:
    """Encode the Property Length and the properties, legal or not."""
    encoded = b"".join(
        bytes([identifier]) + encode_value(identifier, value) for identifier, value in properties
    )
    return variable(len(encoded)) + encoded


# ---------------------------------------------------------------- decoding


class Reader:
    """Takes fields from the bytes of a packet, from the beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Return the number of bytes not taken yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Take so many bytes."""
        if size > self.left:
            raise ViolationError(f"a field of {size} bytes; {self.left} are left")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """Take an integer of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def variable(self) -> int:
        """Take a Variable Byte Integer, of the fewest bytes (MQTT-1.5.5-1)."""
        value = 0
        for place in range(4):
            byte = self.number(1)
            value |= (byte & 0x7F) << 7 * place
            if not byte & 0x80:
                if byte == 0 and place:
                    raise ViolationError("MQTT-1.5.5-1: a Variable Byte Integer of more bytes than it needs")
                return value
        raise ViolationError("1.5.5: a Variable Byte Integer of more than four bytes")

    def binary(self) -> bytes:
        """Take Binary Data."""
        return self.take(self.number(2))

    def string(self) -> str:
        """Take a UTF-8 Encoded String (MQTT-1.5.4-1, MQTT-1.5.4-2)."""
        text = self.binary().decode()
        if "\0" in text:
            raise ViolationError("MQTT-1.5.4-2: U+0000 in a string")
        return text

    def rest(self) -> bytes:
        """Take everything that is left."""
        return self.take(self.left)

    def value(self, identifier: Property) -> Any:
        """Take the value of a property."""
        match TABLE[identifier][0]:
            case Kind.BYTE:
                return self.number(1)
            case Kind.TWO_BYTES:
                return self.number(2)
            case Kind.FOUR_BYTES:
                return self.number(4)
            case Kind.VARIABLE:
                return self.variable()
            case Kind.STRING:
                return self.string()
            case Kind.BINARY:
                return self.binary()
            case Kind.PAIR:
                return self.string(), self.string()

    def properties(self, packet_type: PacketType) -> Properties:
        """Take the properties of a packet, which must be legal there (2.2.2)."""
        inner = Reader(self.take(self.variable()))
        properties: list[tuple[Property, Any]] = []
        while inner.left:
            identifier = Property(inner.variable())
            if packet_type not in TABLE[identifier][1]:
                raise ViolationError(f"2.2.2.2: {identifier.name} in {packet_type.name}")
            if not may_repeat(identifier, packet_type) and any(
                identifier is known for known, _ in properties
            ):
                raise ViolationError(f"2.2.2.2: {identifier.name} twice in {packet_type.name}")
            value = inner.value(identifier)
            if (identifier in ZERO_OR_ONE and value > 1) or (identifier in NOT_ZERO and value == 0):
                raise ViolationError(f"{identifier.name} is {value}")
            properties.append((identifier, value))
        return tuple(properties)
