"""The bytes that simulated devices send, made once before a run. The loads read the answers.

Source: MQTT 3.1.1 and MQTT 5.0, sections 3.1 to 3.4 and 3.12; HTTP/1.1 (RFC 9112); CoAP (RFC 7252); KP/UDP
(docs/kp-over-udp.md); MQTT-SN 1.2; 1/KP resource paths.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Literal

from kaa_gateway.bus import subjects
from kaa_gateway.wire import coap, coap_stream, esp, kpudp

MqttVersion = Literal["3.1.1", "5"]

APP_VERSION = "bench_v1"
EXTENSION = "dcx"

PAYLOAD = (
    b'{"temperature":21.375,"humidity":48.25,"pressure":1013.62,"battery":3.71,"uptime":86400,"status":"ok"}'
)
"""About 100 bytes, as a sample of a sensor has."""


@dataclass(frozen=True)
class Profile:
    """The identity of the devices of a load, and their payload. A token is the prefix and six digits.

    The digits of `REQUEST_ID` in the payload of a request stand for its request ID, so that no two payloads are equal.
    """

    app_version: str = APP_VERSION
    extension: str = EXTENSION
    token_prefix: str = "bench-"
    payload: bytes = PAYLOAD
    path: str = "json"
    tokens: tuple[str, ...] = ()
    """The tokens of the devices, in turn, instead of those with the prefix; all of one length."""
    user: str | None = None
    password: str | None = None

    def token(self, device: int) -> str:
        """Return the endpoint token of a device."""
        if self.tokens:
            return self.tokens[device % len(self.tokens)]
        return f"{self.token_prefix}{device:06d}"

    def resource_path(self, device: int) -> str:
        """Return the 1/KP resource path that a device sends to, without a request ID."""
        return f"kp1/{self.app_version}/{self.extension}/{self.token(device)}/{self.path}"


BENCH = Profile()

CORRELATION_ID = "00000000-0000-8000-8000-000000000000"
TIMESTAMP = 1_700_000_000_000
"""A UNIX time in milliseconds."""
REQUEST_ID = "10000000"
"""A request ID with as many digits as those that a load writes over it."""

CLEAN_SESSION, PASSWORD, USER_NAME = 0x02, 0x40, 0x80
"""Flags of CONNECT."""
PINGREQ = b"\xc0\x00"
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"
"""CONNACK of MQTT 3.1.1."""
TOPIC_ALIAS = 1
ALIAS_PACKET_ID = 1
"""The packet identifier of the PUBLISH that sets the topic alias."""
_LEVELS: dict[MqttVersion, int] = {"3.1.1": 4, "5": 5}
_ALIAS_PROPERTIES = b"\x03\x23" + TOPIC_ALIAS.to_bytes(2, "big")

COAP_CON = 0
COAP_RST = 3
COAP_CSM = b"\x00\xe1"
"""The first message over TCP."""
COAP_POST = 2
COAP_URI_PATH = 11
COAP_CONTENT_FORMAT = 12
COAP_JSON = 50

EPOCH = 0x2A
"""The epoch of the KP/UDP devices. Each run has its own source addresses, so the server knows none of them."""
ALIAS = 1
REGISTRATION_ID = 0
"""The message ID of the registration of the alias; the load continues with the next."""


def connect(
    device: int, profile: Profile = BENCH, version: MqttVersion = "3.1.1", keep_alive: int = 0
) -> bytes:
    """Return CONNECT with a clean session, and the token as client identifier. A `keep_alive` of 0 is none."""
    flags = CLEAN_SESSION
    payload = string(profile.token(device))
    if profile.user is not None:
        flags |= USER_NAME
        payload += string(profile.user)
    if profile.password is not None:
        flags |= PASSWORD
        payload += string(profile.password)
    fixed = string("MQTT") + bytes([_LEVELS[version], flags]) + keep_alive.to_bytes(2, "big")
    return packet(0x10, fixed + properties(version) + payload)


def properties(version: MqttVersion, *, aliased: bool = False) -> bytes:
    """Return the properties with their length: none, or the topic alias of a PUBLISH. MQTT 3.1.1 has no field."""
    if aliased:
        return _ALIAS_PROPERTIES
    return b"" if version == "3.1.1" else b"\x00"


def publish(
    device: int,
    qos: int,
    profile: Profile = BENCH,
    version: MqttVersion = "3.1.1",
    *,
    aliased: bool = False,
) -> bytes:
    """Return PUBLISH of the payload. With QoS 1 the packet identifier, at `identifier_offset`, is 0.

    If it is `aliased`, it has the topic alias that `alias_registration` has set, and no topic.
    """
    identifier = b"\x00\x00" if qos else b""
    topic = string("" if aliased else profile.resource_path(device))
    return packet(
        0x30 | qos << 1, topic + identifier + properties(version, aliased=aliased) + profile.payload
    )


def alias_registration(device: int, profile: Profile = BENCH) -> bytes:
    """Return PUBLISH of the payload at QoS 1 that sets the topic alias."""
    identifier = ALIAS_PACKET_ID.to_bytes(2, "big")
    topic = string(profile.resource_path(device))
    return packet(0x32, topic + identifier + _ALIAS_PROPERTIES + profile.payload)


def identifier_offset(
    message: bytes, profile: Profile = BENCH, version: MqttVersion = "3.1.1", *, aliased: bool = False
) -> int:
    """Return the offset of the packet identifier in a QoS 1 PUBLISH of the payload."""
    return len(message) - len(profile.payload) - len(properties(version, aliased=aliased)) - 2


def request(device: int, profile: Profile = BENCH, version: MqttVersion = "3.1.1") -> bytes:
    """Return PUBLISH of the payload at QoS 0 with a request ID at `request_id_offset`, which the extension answers."""
    topic = string(f"{profile.resource_path(device)}/{REQUEST_ID}")
    return packet(0x30, topic + properties(version) + profile.payload)


def request_id_offset(message: bytes, profile: Profile = BENCH, version: MqttVersion = "3.1.1") -> int:
    """Return the offset of the request ID in a request."""
    return len(message) - len(profile.payload) - len(properties(version)) - len(REQUEST_ID)


def counter_offset(message: bytes, profile: Profile = BENCH) -> int | None:
    """Return the offset of the request ID in the payload of a request, None if the payload has none."""
    at = profile.payload.find(REQUEST_ID.encode())
    return len(message) - len(profile.payload) + at if at >= 0 else None


def nats_inbox(device: int) -> str:
    """Return the subject on which a device of a bare NATS load gets answers."""
    return subjects.replica(f"bench-{device:06d}", "esp", subjects.EXTENSION_DATA)


def nats_request(device: int) -> bytes:
    """Return PUB of the ClientData that the gateway would make, with the device's inbox as reply subject."""
    return nats_publication(device, nats_inbox(device))


def nats_publication(device: int, inbox: str) -> bytes:
    """Return PUB of the ClientData that the gateway would make, with any reply subject."""
    subject = subjects.service(EXTENSION, "esp", subjects.CLIENT_DATA)
    datum = client_data(device)
    return f"PUB {subject} {inbox} {len(datum)}\r\n".encode() + datum + b"\r\n"


def client_data(device: int) -> bytes:
    """Return the ClientData of a request with the payload."""
    return esp.encode_client_data(
        CORRELATION_ID,
        1_700_000_000_000,
        0,
        APP_VERSION,
        BENCH.token(device),
        "/json",
        int(REQUEST_ID),
        PAYLOAD,
    )


def extension_data(device: int) -> bytes:
    """Return the answer of an extension, with a payload of the same size."""
    return esp.encode_extension_data(
        CORRELATION_ID,
        1_700_000_000_000,
        0,
        APP_VERSION,
        EXTENSION,
        BENCH.token(device),
        "/json",
        int(REQUEST_ID),
        PAYLOAD,
        200,
    )


def post(device: int, host: str, profile: Profile = BENCH) -> bytes:
    """Return a POST of the payload."""
    head = (
        f"POST /{profile.resource_path(device)} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        f"{authorization(profile)}"
        f"Content-Type: application/json\r\n"
        f"Content-Length: {len(profile.payload)}\r\n\r\n"
    )
    return head.encode() + profile.payload


def authorization(profile: Profile) -> str:
    """Return the Authorization field with its line break, or nothing (RFC 7617)."""
    if profile.user is None:
        return ""
    credentials = f"{profile.user}:{profile.password or ''}".encode()
    return f"Authorization: Basic {base64.b64encode(credentials).decode()}\r\n"


def coap_post(device: int, profile: Profile = BENCH) -> bytes:
    """Return a confirmable POST of the payload. The message ID and the last half of the token are 0."""
    path = tuple((COAP_URI_PATH, segment.encode()) for segment in profile.resource_path(device).split("/"))
    token_start = (device & 0xFFFF).to_bytes(2, "big")
    options = (*path, (COAP_CONTENT_FORMAT, bytes([COAP_JSON])))
    return coap.encode(coap.Message(COAP_CON, COAP_POST, 0, token_start + b"\0\0", options, profile.payload))


def coap_stream_post(device: int, profile: Profile = BENCH) -> bytes:
    """Return the same request for CoAP over TCP."""
    return coap_stream.encode_stream(coap.decode(coap_post(device, profile)))


def coap_empty(type_: int, message_id: int) -> bytes:
    """Return an empty message: with CON a ping, with RST its answer."""
    return coap.encode(coap.Message(type_, 0, message_id))


def kpudp_registration(device: int, profile: Profile = BENCH) -> bytes:
    """Return CONFIRMED DATA of the payload that gives the resource path its alias."""
    path = profile.resource_path(device)
    return kpudp.encode(
        EPOCH,
        [kpudp.Message(kpudp.Type.CONFIRMED_DATA, REGISTRATION_ID, ALIAS, path, payload=profile.payload)],
    )


def identity(device: int) -> bytes:
    """Return the identity of a device with a pre-shared key."""
    return f"bench-{device}".encode()


def shared_key(device: int) -> bytes:
    """Return the pre-shared key of a device of the bench. It is no secret."""
    return hashlib.sha256(identity(device)).digest()[:16]


def kpudp_data(profile: Profile = BENCH) -> bytes:
    """Return CONFIRMED DATA of the payload to the alias, the same for all devices. The message ID is 0."""
    return kpudp.encode(EPOCH, [kpudp.Message(kpudp.Type.CONFIRMED_DATA, 0, ALIAS, payload=profile.payload)])


def mqtt_sn_connect(device: int, profile: Profile = BENCH) -> bytes:
    """Return CONNECT of MQTT-SN for a clean session, without keep-alive."""
    return sn_message(0x04, bytes([0x04, 0x01, 0, 0]) + profile.token(device).encode())


def mqtt_sn_register(device: int, profile: Profile = BENCH) -> bytes:
    """Return REGISTER of the resource path."""
    return sn_message(0x0A, b"\0\0\0\1" + profile.resource_path(device).encode())


def mqtt_sn_publish(topic_id: int, profile: Profile = BENCH) -> bytes:
    """Return PUBLISH of the payload at QoS 1. The message ID is 0."""
    return sn_message(0x0C, b"\x20" + topic_id.to_bytes(2, "big") + b"\0\0" + profile.payload)


def sn_message(kind: int, body: bytes) -> bytes:
    """Return a message of MQTT-SN (section 5.2 of its version 1.2)."""
    size = len(body) + 2
    if size > 255:
        return b"\x01" + (size + 2).to_bytes(2, "big") + bytes([kind]) + body
    return bytes([size, kind]) + body


def string(value: str) -> bytes:
    """Return a UTF-8 string of MQTT: two bytes of length, then the text."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(first: int, body: bytes) -> bytes:
    """Return an MQTT control packet: the fixed header with the remaining length, then the rest."""
    header = bytearray([first])
    rest = len(body)
    while rest > 0x7F:
        header.append(rest & 0x7F | 0x80)
        rest >>= 7
    header.append(rest)
    return bytes(header) + body


_REFUSALS: dict[MqttVersion, dict[int, str]] = {
    "3.1.1": {
        1: "protocol version not accepted",
        2: "client identifier rejected",
        3: "server unavailable",
        4: "bad user name or password",
        5: "not authorized",
    },
    "5": {
        0x80: "unspecified error",
        0x81: "malformed packet",
        0x82: "protocol error",
        0x84: "protocol version not accepted",
        0x85: "client identifier not valid",
        0x86: "bad user name or password",
        0x87: "not authorized",
        0x88: "server unavailable",
        0x89: "server busy",
        0x8A: "banned",
        0x8C: "bad authentication method",
        0x95: "packet too large",
        0x97: "quota exceeded",
        0x9C: "use another server",
        0x9D: "server moved",
        0x9F: "connection rate exceeded",
    },
}
"""What the codes in CONNACK say (MQTT 3.1.1, section 3.2.2.3; MQTT 5.0, section 3.2.2.2)."""


def connack(code: int, version: MqttVersion) -> str:
    """Return how a CONNACK that refuses is told."""
    shown = f"{code:#04x}" if version == "5" else str(code)
    return f"CONNACK {shown} ({_REFUSALS[version].get(code, 'unknown code')})"
