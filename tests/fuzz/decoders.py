"""Every decoder of bytes from a peer, with inputs to begin with.

A decoder answers any bytes with a value or its own error, believes no more bytes than there are, and says the same of
the same bytes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.errors import GatewayError, MalformedAvro, ProtocolError
from kaa_gateway.http.parser import RequestLimits, read_requests
from kaa_gateway.http.target import resource_path
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.resource_path import parse, request_id_of
from kaa_gateway.mqtt.subscriptions import filter_matches
from kaa_gateway.wire import avro, coap, coap_stream, esp, kpudp, kpudp_secure, mqtt_sn, nats
from kaa_gateway.wire.proxy_header import decode_proxy_header

from tests.fuzz.mqtt5_seeds import MQTT_5
from tests.support import proxy_headers
from tests.support.kpudp_examples import HEX, VECTORS
from tests.support.mqtt_sn_examples import VECTORS as SN_VECTORS


class Decoder(NamedTuple):
    """`decode` gives what it read and how many bytes that took; `seeds` are what it shall read."""

    decode: Callable[[Any], tuple[object, int]]
    errors: type[GatewayError] | tuple[()]
    takes_any_buffer: bool
    seeds: list[bytes]


def whole(decode: Callable[[Any], object]) -> Callable[[Any], tuple[object, int]]:
    """A decoder of an input that is given to it whole."""
    return lambda data: (decode(data), len(data))


CLIENT_DATA = [
    esp.encode_client_data("c" * 36, 1_700_000_000_000, 0, "app", "endpoint", "/json", 7, b"payload", None),
    esp.encode_client_data("", -1, 2**63 - 1, "ü", None, "", None, b"", "name"),
]
EXTENSION_DATA = [
    esp.encode_extension_data("c" * 36, 1, 2, "app", "dcx", "endpoint", "/json", 7, b"payload", 200, "OK"),
    esp.encode_extension_data("", -1, -(2**63), None, None, None, "", None, None, -1, None),
]
MQTT = [
    mqtt.encode(mqtt.Connect("id", True, 60, mqtt.Will("w", b"m", 1), "user", b"password")),
    mqtt.encode(mqtt.Connect("id", level=mqtt.LEVEL_3_1)),
    mqtt.encode(mqtt.Connack(True, 0)),
    mqtt.encode(mqtt.Publish("kp1/v/dcx/ü/json/1", b"x" * 130, 1, 10)),
    mqtt.encode(mqtt.Publish("a", b"")),
    mqtt.encode(mqtt.Pubrel(7)),
    mqtt.encode(mqtt.Subscribe(1, (("a/+/#", 1), ("b", 2)))),
    mqtt.encode(mqtt.Suback(1, (0, 128))),
    mqtt.encode(mqtt.Unsubscribe(1, ("a/+", "#"))),
    mqtt.encode(mqtt.Pingreq()),
]
NATS = [
    b'INFO {"server_id":"x","max_payload":1048576}\r\n',
    b"MSG a.b 1 11\r\nHello World\r\n",
    b"MSG a.b 1 c.d 0\r\n\r\n",
    b"HMSG a 9 r 34 45\r\nNATS/1.0\r\nFoodGroup: vegetable\r\n\r\nHello World\r\n",
    b"HMSG a 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    b"+OK\r\n-ERR 'Stale Connection'\r\nPING\r\npong\r\n",
]
HTTP = [
    b"POST /kp1/v/x HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
    b"GET /?q HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD / HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n\r\n",
]
TARGETS_OF_HTTP = [b"/kpc/kp1/v/dcx/t%20/x?q#f", b"/kp1/v/dcx/t?wait=5&batch=9", b"*"]

PATH = tuple((11, level) for level in (b"kp1", b"app_v1", b"dcx", b"t", b"json"))

COAP = [
    coap.encode(coap.Message(0, 2, 7, b"token", PATH, b"{}")),
    coap.encode(coap.Message(1, 1, 8, b"", ((6, b""), *PATH, (23, b"\x06")))),
    coap.encode(coap.Message(0, 2, 9, b"", (*PATH, (27, b"\x08")), bytes(16))),
    coap.encode(coap.Message(2, 0, 9)),
]
STREAM_REQUEST = coap.Message(4, 2, 0, b"token", PATH, b"{}")
COAP_STREAM = [
    b"\x00\xe1" + coap_stream.encode_stream(coap.Message(4, 0xE1, 0, b"", ((2, b"\x10\x00"), (4, b"")))),
    coap_stream.encode_stream(STREAM_REQUEST),
    coap_stream.encode_stream(coap.Message(4, 1, 0, b"t" * 20, ((6, b""), *PATH, (23, b"\x06")))),
    coap_stream.encode_stream(coap.Message(4, 0xE2, 0, b"ping")) + b"\x00\xe4",
    coap_stream.encode_stream(coap.Message(4, 2, 0, b"", (*PATH, (27, b"\x0f")), bytes(1024))),
]
KPUDP = list(HEX)
KPUDP_SECURE = [datagram for datagram in VECTORS.values() if datagram[:1] == b"\xb2"]
MQTT_SN = [*map(bytes.fromhex, SN_VECTORS), b"\x01\x01\x30\x0c\x00\x00\x01\x00\x00" + bytes(295)]
PROXY_HEADERS = [
    proxy_headers.line("192.0.2.7"),
    proxy_headers.line("2001:db8::7"),
    b"PROXY UNKNOWN\r\n",
    proxy_headers.binary("192.0.2.7", fields=[proxy_headers.field(proxy_headers.AUTHORITY, b"a.example")]),
    proxy_headers.binary("2001:db8::7", fields=[proxy_headers.tls_field(b"meter-7")]),
    proxy_headers.binary(None, command=proxy_headers.LOCAL),
    proxy_headers.with_checksum("192.0.2.7"),
]
CORRELATOR = Correlator(0xABCDEF, 0)
LIMITS = RequestLimits(4096, 4096, 1024)
TOPICS = [b"kp1/v1/dcx/token/json/12", b"kp1/v1/tsx", b"kp1//x/2147483648"]


def match(data: bytes) -> tuple[object, int]:
    """A filter and a topic, separated by a line feed; the filter as SUBSCRIBE has let it pass."""
    topic_filter, _, topic = data.partition(b"\n")
    try:
        mqtt.decode(mqtt.encode(mqtt.Subscribe(1, ((topic_filter.decode(), 0),))))
    except (UnicodeDecodeError, ProtocolError):
        return None, len(data)
    return filter_matches(topic_filter, topic), len(data)


def proxy_header(data: Any) -> tuple[object, int]:
    """The header of a stream. One that is incomplete is not read."""
    header = decode_proxy_header(data)
    if header is None:
        raise ProtocolError("proxy_malformed_header")
    return header, header.size


DECODERS = {
    "avro long": Decoder(
        avro.decode_long, MalformedAvro, False, [avro.encode_long(n) for n in (0, -1, 2**62)]
    ),
    "avro bytes": Decoder(
        avro.decode_bytes, MalformedAvro, False, [b"\x06foo", b"\x00", b"\x80\x01" + bytes(64)]
    ),
    "ClientData": Decoder(whole(esp.decode_client_data), MalformedAvro, True, CLIENT_DATA),
    "ExtensionData": Decoder(whole(esp.decode_extension_data), MalformedAvro, True, EXTENSION_DATA),
    "MQTT 3.1.1": Decoder(mqtt.decode, ProtocolError, True, MQTT),
    "MQTT 5": Decoder(lambda data: mqtt.decode(data, mqtt.LEVEL_5), ProtocolError, True, MQTT_5),
    "MQTT 3.1": Decoder(lambda data: mqtt.decode(data, mqtt.LEVEL_3_1, 4096), ProtocolError, True, MQTT),
    "CoAP": Decoder(whole(coap.decode), ProtocolError, False, COAP),
    "CoAP stream": Decoder(whole(coap_stream.decode_stream), ProtocolError, False, COAP_STREAM),
    "KP UDP": Decoder(whole(kpudp.decode), ProtocolError, False, KPUDP),
    "KP UDP secure": Decoder(whole(kpudp_secure.decode_secure), ProtocolError, False, KPUDP_SECURE),
    "MQTT-SN": Decoder(whole(mqtt_sn.decode), ProtocolError, False, MQTT_SN),
    "PROXY header": Decoder(proxy_header, ProtocolError, True, PROXY_HEADERS),
    "NATS": Decoder(nats.decode, ProtocolError, True, NATS),
    "HTTP": Decoder(whole(lambda data: read_requests([data], LIMITS)), (), False, HTTP),
    "HTTP target": Decoder(
        whole(lambda data: resource_path(data, b"/kpc")),
        (),
        False,
        TARGETS_OF_HTTP,
    ),
    "correlation ID": Decoder(
        whole(CORRELATOR.decode), (), False, [CORRELATOR.encode(5, 1, 9).encode() for _ in range(2)]
    ),
    "resource path": Decoder(whole(parse), (), False, TOPICS),
    "request ID": Decoder(whole(request_id_of), (), False, TOPICS),
    "topic filter": Decoder(match, (), False, [b"a/+/#\na/b/c", b"#\n$SYS", b"+/+\n/", b"a/#\na"]),
}


def check(decoder: Decoder, data: bytes) -> tuple[str, int]:
    """Decode an input and check what must hold of it: what it came to, and the bytes that took."""
    try:
        value, consumed = decoder.decode(data)
    except decoder.errors as error:
        return error.reason, 0
    assert 0 <= consumed <= len(data)
    if 0 < consumed < len(data):
        # What follows has no part in it.
        assert decoder.decode(bytes(data[:consumed])) == (value, consumed)
    return "a value" if consumed else "nothing yet", consumed
