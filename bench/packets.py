"""The bytes that a simulated device sends, made once before a run.

MQTT 3.1.1 sections 3.1 to 3.3 and 3.12, HTTP/1.1 (RFC 9112), CoAP (RFC 7252), KP/UDP (docs/kp-over-udp.md), with
1/KP resource paths. Reading the answers is the loads' (mqtt_load.pyx and its like).
"""

from gateway.wire import coap, kpudp

APP_VERSION = "bench_v1"
EXTENSION = "dcx"

PAYLOAD = (
    b'{"temperature":21.375,"humidity":48.25,"pressure":1013.62,"battery":3.71,"uptime":86400,"status":"ok"}'
)
"""About 100 bytes, as a sensor's sample is."""

PINGREQ = b"\xc0\x00"
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"

COAP_CON = 0
COAP_RST = 3
COAP_POST = 2
COAP_URI_PATH = 11
COAP_CONTENT_FORMAT = 12
COAP_JSON = 50

EPOCH = 0x2A
"""Of the KP/UDP devices; each run has source addresses of its own, so the server takes none for one known before."""
ALIAS = 1
REGISTRATION_ID = 0
"""Message ID of the registration of the alias; the load goes on from the next."""


def token(device: int) -> str:
    """The endpoint token of a device; all of one length, as a load's messages must be."""
    return f"bench-{device:06d}"


def resource_path(device: int) -> str:
    """The 1/KP resource path that a device sends to: a data collection without a request ID."""
    return f"kp1/{APP_VERSION}/{EXTENSION}/{token(device)}/json"


def connect(device: int) -> bytes:
    """CONNECT with a clean session, no keep-alive, and the token as the client identifier."""
    variable_header = string("MQTT") + b"\x04\x02\x00\x00"
    return packet(0x10, variable_header + string(token(device)))


def publish(device: int, qos: int) -> bytes:
    """PUBLISH of the payload; with QoS 1 the packet identifier, at `identifier_offset`, is still 0."""
    identifier = b"\x00\x00" if qos else b""
    return packet(0x30 | qos << 1, string(resource_path(device)) + identifier + PAYLOAD)


def identifier_offset(message: bytes) -> int:
    """Where the packet identifier of a QoS 1 PUBLISH of the payload lies: just before the payload."""
    return len(message) - len(PAYLOAD) - 2


def post(device: int, host: str) -> bytes:
    """A POST of the payload."""
    head = (
        f"POST /{resource_path(device)} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        f"Content-Type: application/json\r\n"
        f"Content-Length: {len(PAYLOAD)}\r\n\r\n"
    )
    return head.encode() + PAYLOAD


def coap_post(device: int) -> bytes:
    """A confirmable POST of the payload; message ID and the last half of the token are still 0."""
    path = tuple((COAP_URI_PATH, segment.encode()) for segment in resource_path(device).split("/"))
    token_start = (device & 0xFFFF).to_bytes(2, "big")
    options = (*path, (COAP_CONTENT_FORMAT, bytes([COAP_JSON])))
    return coap.encode(coap.Message(COAP_CON, COAP_POST, 0, token_start + b"\0\0", options, PAYLOAD))


def coap_empty(type_: int, message_id: int) -> bytes:
    """An empty message: with CON a ping, with RST its answer."""
    return coap.encode(coap.Message(type_, 0, message_id))


def kpudp_registration(device: int) -> bytes:
    """CONFIRMED DATA of the payload that gives the resource path its alias."""
    path = resource_path(device)
    return kpudp.encode(
        EPOCH, [kpudp.Message(kpudp.Type.CONFIRMED_DATA, REGISTRATION_ID, ALIAS, path, payload=PAYLOAD)]
    )


def kpudp_data() -> bytes:
    """CONFIRMED DATA of the payload to the alias, so the same for all devices; the message ID is still 0."""
    return kpudp.encode(EPOCH, [kpudp.Message(kpudp.Type.CONFIRMED_DATA, 0, ALIAS, payload=PAYLOAD)])


def string(value: str) -> bytes:
    """A UTF-8 string of MQTT: two bytes of length, then the text."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(first: int, body: bytes) -> bytes:
    """An MQTT control packet: the fixed header with the remaining length, then the rest."""
    header = bytearray([first])
    rest = len(body)
    while rest > 0x7F:
        header.append(rest & 0x7F | 0x80)
        rest >>= 7
    header.append(rest)
    return bytes(header) + body
