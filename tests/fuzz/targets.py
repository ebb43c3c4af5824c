"""What is fuzzed: every decoder of what a peer sends, and whole sessions; and inputs to begin with.

`TARGETS` is all of it, for the short run in the test suite and the long one under libFuzzer alike. A target takes any
bytes and raises nothing. A decoder answers them with a value or its own error, believes no more bytes than there are,
and says the same of the same bytes; sessions are simulation.py's.
"""

import base64
import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
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

from tests.fuzz import bridged
from tests.fuzz.bridged import BridgeSimulation
from tests.fuzz.durable import (
    GOOD_ANSWER,
    NO_STREAM,
    PAUSE,
    QOS_0,
    QOS_1,
    QOS_2,
    RECONNECT,
    REQUEST,
    SILENCE,
    SKIP,
    DurableSimulation,
)  # fmt: skip
from tests.fuzz.encrypted import EncryptedSimulation
from tests.fuzz.mqtt5_seeds import MQTT_5
from tests.fuzz.simulation import NatsSimulation, Simulation, steps
from tests.support import mqtt_sn as sn
from tests.support import proxy_headers
from tests.support.kpudp_examples import HEX, VECTORS
from tests.support.mqtt5 import codec as mqtt5
from tests.support.mqtt5.packets import Connect, Disconnect, Publish, Subscribe, Will
from tests.support.mqtt5.properties import Property
from tests.support.mqtt_sn_examples import VECTORS as SN_VECTORS

CORPUS = Path(__file__).parent / "corpus"
CLOCK_MAX_S = 1e9
"""Thirty years, which no machine's clock counts; sessions that wait for a day get there."""
INPUT_SIZE_MAX = 16 * 1024

INTERESTING = [0x00, 0x01, 0x02, 0x04, 0x7F, 0x80, 0x81, 0xFE, 0xFF, *b"\r\n /+#$09aAZ:"]


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
WAIT = b"POST /kp1/app_v1/dcx/t/json?wait=5%s HTTP/1.1\r\nHost: g\r\n\r\n"
EVENTS = b"GET /kp1/app_v1/dcx/t HTTP/1.1\r\nHost: g\r\nAccept: text/event-stream\r\n\r\n"
PATH = tuple((11, level) for level in (b"kp1", b"app_v1", b"dcx", b"t", b"json"))
COAP_WAIT = coap.encode(coap.Message(0, 2, 9, b"w", (*PATH, (15, b"wait=5")), b""))
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


def mutations(seeds: list[bytes], count: int, source: random.Random) -> Iterator[bytearray]:
    """Inputs that are nearly right, and grow further from it; each begins with one of the seeds."""
    for _ in range(count):
        data = bytearray(source.choice(seeds))
        for _ in range(source.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
            at = source.randrange(len(data) + 1)
            kind = source.randrange(8)
            if kind == 0:
                del data[at:]
            elif kind == 1:
                del data[at : at + source.randint(1, 4)]
            elif kind == 2:
                data.insert(at, source.choice(INTERESTING))
            elif kind == 3:
                data[at:at] = source.choice(seeds)[: source.randint(1, 40)]
            elif kind == 4:
                data[at:at] = data[at : at + source.randint(1, 40)] * source.randint(1, 3)
            elif at < len(data):
                if kind == 5:
                    data[at] ^= 1 << source.randrange(8)
                elif kind == 6:
                    data[at] = source.choice(INTERESTING)
                else:
                    data[at] = source.randrange(256)
        yield data[:INPUT_SIZE_MAX]


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


CONNECT = mqtt.encode(mqtt.Connect("id", False, 0, mqtt.Will("kp1/app_v1/dcx/w/x", b"gone", 1)))
TOPIC = "kp1/app_v1/dcx/t/json/1"
(
    OPEN,
    LOSE,
    TURN,
    CONFIRM,
    IDENTIFY,
    REFUSE,
    ANSWER,
    ANSWER_404,
    ANSWER_LARGE,
    PUSH,
    NOBODY,
    SOON,
    LATER,
    LATE,
    RESTART,
    SHAKE_HANDS,
    RAW,
) = range(17)
CONNECT_5 = mqtt5.encode(
    Connect(
        "id",
        False,
        will=Will("kp1/app_v1/dcx/w/x", b"gone", 1, properties=((Property.WILL_DELAY_INTERVAL, 3),)),
        properties=(
            (Property.SESSION_EXPIRY_INTERVAL, 100),
            (Property.RECEIVE_MAXIMUM, 2),
            (Property.MAXIMUM_PACKET_SIZE, 90),
            (Property.TOPIC_ALIAS_MAXIMUM, 2),
        ),
    )
)
REQUEST_5 = (
    (Property.RESPONSE_TOPIC, "answers"),
    (Property.CORRELATION_DATA, b"x"),
    (Property.TOPIC_ALIAS, 1),
)
MQTT_SESSIONS = [
    steps(
        CONNECT_5,
        mqtt5.encode(Publish(TOPIC, b"{}", 1, 1, properties=REQUEST_5)),
        IDENTIFY,
        mqtt5.encode(Publish("", b"{}", 2, 2, properties=((Property.TOPIC_ALIAS, 1),))),
        NOBODY,
        CONFIRM,
        ANSWER,
        mqtt5.encode(
            Subscribe(
                3, (("kp1/#", 1), ("$share/a/b", 1)), properties=((Property.SUBSCRIPTION_IDENTIFIER, 5),)
            )
        ),
        PUSH,
        LOSE,
        PUSH,
        LATER,
        OPEN,
        CONNECT,
        LOSE,
        OPEN,
        CONNECT_5,
        mqtt5.encode(Disconnect(4, properties=((Property.SESSION_EXPIRY_INTERVAL, 1),))),
    ),
    steps(
        CONNECT,
        mqtt.encode(mqtt.Publish(TOPIC, b"{}", 1, 1)),
        IDENTIFY,
        CONFIRM,
        ANSWER,
        mqtt.encode(mqtt.Puback(1)),
    ),
    steps(
        CONNECT,
        mqtt.encode(mqtt.Publish(TOPIC, b"{}", 2, 1)),
        IDENTIFY,
        CONFIRM,
        mqtt.encode(mqtt.Pubrel(1)),
        ANSWER_404,
        mqtt.encode(mqtt.Pubrec(1)),
        mqtt.encode(mqtt.Pubcomp(1)),
        LOSE,
        PUSH,
        OPEN,
        CONNECT,
        mqtt.encode(mqtt.Disconnect()),
    ),
    steps(
        CONNECT,
        mqtt.encode(mqtt.Subscribe(1, (("kp1/app_v1/+/t/#", 1),))),
        IDENTIFY,
        OPEN,
        CONNECT,
        TURN,
        PUSH,
        NOBODY,
        mqtt.encode(mqtt.Unsubscribe(2, ("kp1/app_v1/+/t/#",))),
        RESTART,
        LATE,
        mqtt.encode(mqtt.Pingreq()),
    ),
]
HTTP_SESSIONS = [
    steps(WAIT % b"", IDENTIFY, CONFIRM, PUSH, WAIT % b"", LATER, LATE),
    steps(WAIT % b"&batch=2", IDENTIFY, CONFIRM, PUSH, PUSH, WAIT % b"&batch=9", PUSH, LATER),
    steps(EVENTS, IDENTIFY, CONFIRM, PUSH, PUSH, ANSWER, LATER),
    steps(
        b"POST /kp1/app_v1/dcx/t/json HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}", IDENTIFY, ANSWER
    ),
    steps(
        b"POST /kp1/app_v1/dcx/t HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\n",
        REFUSE,
        b"POST /kp1/app_v1/tsx HTTP/1.1\r\nHost: g\r\n\r\n" * 2,
        NOBODY,
        ANSWER,
        LATE,
    ),
    steps(
        b"POST /kp1/app_v1/tsx HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        b"a",
        LOSE,
    ),
]
AS_A_CLIENT = b"POST /kp1/app_v1/dcx/t/json HTTP/1.1\r\nHost: g\r\nAuthorization: Basic YTpi\r\n"
AS_A_STRANGER = AS_A_CLIENT.replace(b"YTpi", base64.b64encode(b"stranger:b"))
HTTP_CLIENT_SESSIONS = [
    steps(
        AS_A_CLIENT + b"Content-Length: 2\r\n\r\n",
        b"{}",
        IDENTIFY,
        IDENTIFY,
        ANSWER,
        AS_A_CLIENT + b"\r\n",
        ANSWER,
    ),
    steps(AS_A_CLIENT + b"\r\n", AS_A_STRANGER + b"Content-Length: 2\r\n\r\n{", IDENTIFY, b"}", ANSWER),
    steps(AS_A_STRANGER + b"Transfer-Encoding: chunked\r\n\r\n2\r\n", IDENTIFY, b"{}\r\n0\r\n\r\n", LOSE),
    steps(
        AS_A_CLIENT + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        IDENTIFY,
        b"a",
        IDENTIFY,
        ANSWER,
        LATE,
    ),
    steps(
        b"POST /kp1/app_v1/tsx HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: 9\r\n\r\nabc", LATE
    ),
]
COAP_SESSIONS = [
    steps(COAP[0], IDENTIFY, SOON, ANSWER, COAP[0]),
    steps(COAP[1], IDENTIFY, ANSWER_LARGE, PUSH, PUSH, COAP[3], SOON, LATER, LATE),
    steps(COAP[2], OPEN, COAP[2], REFUSE, NOBODY, LATE),
    steps(COAP_WAIT, IDENTIFY, CONFIRM, COAP_WAIT, PUSH, LATER, COAP_WAIT, LATE),
]
SN_CONNECT = sn.connect("t", flags=0)
SN_WILL = (
    sn.connect("t", flags=sn.CLEAN | sn.WILL, duration=100),
    sn.message(sn.WILLTOPIC, b"\x20kp1/app_v1/dcx/t/json"),
    sn.message(sn.WILLMSG, b"gone"),
)
MQTT_SN_SESSIONS = [
    steps(
        SN_CONNECT,
        sn.register(1, "kp1/app_v1/dcx/t/json/1"),
        sn.publish(1, b"{}", qos=1, message_id=1),
        IDENTIFY,
        CONFIRM,
        ANSWER,
        sn.acknowledgement(sn.REGACK, 2, 1),
        SOON,
        LATER,
        LATE,
    ),
    steps(
        *SN_WILL,
        sn.subscribe(2, "kp1/app_v1/dcx/t/#", qos=2),
        IDENTIFY,
        sn.message(sn.DISCONNECT, sn.number(100)),
        PUSH,
        PUSH,
        PUSH,
        sn.message(sn.PINGREQ, b"t"),
        OPEN,
        sn.message(sn.PINGREQ, b"t"),
        LATER,
        SN_CONNECT,
        LATE,
    ),
    steps(
        sn.publish(1, b"{}", qos=-1, kind=sn.PREDEFINED),
        IDENTIFY,
        b"\x04\xfe\x00a" + SN_CONNECT,
        b"\x04\xfe\x00b" + SN_CONNECT,
        b"\x04\xfe\x00b" + sn.publish(2, b"{}", qos=2, message_id=3, kind=sn.PREDEFINED),
        NOBODY,
        CONFIRM,
        b"\x04\xfe\x00b" + sn.message(sn.PUBREL, sn.number(3)),
        RESTART,
        b"\x04\xfe\x00b" + sn.message(sn.WILLTOPICUPD, b"\x00a"),
        b"\x04\xfe\x00b" + sn.message(sn.WILLMSGUPD, b"b"),
        LOSE,
        LATE,
    ),
]
PLUGIN_SESSIONS = [
    steps(
        b"login t\nconfirm dcx/json {}\nask dcx/json {}\n",
        IDENTIFY,
        CONFIRM,
        ANSWER,
        PUSH,
        b"timer 1\npub",
        LATER,
        b"lish dcx/json {}\n",
        NOBODY,
        LATE,
    ),
    steps(b"as dcx/json t {}\n", IDENTIFY, b"send x\nbye\n", LATE),
    steps(b"publish dcx/json {}\n", OPEN, b"login t\nfault\n", REFUSE, b"undeclared\nwrong\n"),
    steps(b"login t\n", IDENTIFY, b"publish cmx/json {}\n" * 5, RESTART, PUSH, b"ask tsx/x {}\n", LOSE),
]
BRIDGE_SESSIONS = [
    steps(
        b"kp1/app_v1/dcx/t/json/1\n{}", bridged.IDENTIFY, bridged.CONFIRM, bridged.ANSWER, bridged.PUSH,
        bridged.BROKER_FULL, bridged.PUSH, b"kp1/app_v1/nobody/t/json\nx",
    ),
    steps(
        b"plant/t/telemetry/json\nxx", b"t/dcx\nx", bridged.NATS_LOST, bridged.IDENTIFY, bridged.NOBODY,
        bridged.ANOTHER_OWNER, bridged.PUSH, bridged.ERROR, b"kp1/app_v1/tsx/7\nx", bridged.CONFIRM,
    ),
]  # fmt: skip
COAP_STREAM_SESSIONS = [
    steps(COAP_STREAM[0], COAP_STREAM[1], IDENTIFY, ANSWER, SOON),
    steps(COAP_STREAM[0] + COAP_STREAM[2], IDENTIFY, ANSWER_LARGE, PUSH, PUSH, LATER, LATE),
    steps(COAP_STREAM[0] + COAP_STREAM[3], COAP_STREAM[1], OPEN, COAP_STREAM[4], REFUSE, LOSE),
]
COAP_UPGRADE = (
    b"GET /.well-known/coap HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: coap\r\n\r\n"
)
KPUDP_SESSIONS = [steps(datagram, IDENTIFY, CONFIRM, ANSWER, PUSH, LATER) for datagram in KPUDP]


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def frame(payload: bytes, first: int = 0x82) -> bytes:
    """A frame of a WebSocket client, of at most 125 bytes; its mask changes nothing."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


PUBLISH = mqtt.encode(mqtt.Publish(TOPIC, b"{}", 1, 1))
COAP_WEBSOCKET_SESSIONS = [
    steps(
        COAP_UPGRADE,
        frame(b"\x00\xe1"),
        frame(coap_stream.encode_stream(STREAM_REQUEST, False)),
        IDENTIFY,
        ANSWER,
        frame(b"\x00\xe4"),
    ),
    steps(COAP_UPGRADE, frame(b"\x00", 0x02) + frame(b"\xe1", 0x80), frame(b"\x10\x02"), LATE, LOSE),
]
WEBSOCKET_SESSIONS = [
    steps(
        UPGRADE,
        frame(CONNECT),
        frame(PUBLISH),
        IDENTIFY,
        CONFIRM,
        ANSWER,
        frame(b"", 0x89),
        frame(b"\x03\xe8", 0x88),
    ),
    steps(
        UPGRADE,
        frame(CONNECT[:5], 0x02) + frame(b"", 0x89) + frame(CONNECT[5:], 0x80),
        frame(PUBLISH),
        LATE,
        LOSE,
    ),
]


JETSTREAM_SESSIONS = [
    steps(QOS_1, QOS_1, b'{"stream":"kaa-dcx", "seq":1}', GOOD_ANSWER, REQUEST),
    steps(QOS_0, QOS_2, b'{"error":{"code":503,"err_code":10077,"description":"full"}}', PAUSE, GOOD_ANSWER),
    steps(QOS_1, b'{"error":{"err_code":10054}}', REQUEST, NO_STREAM, SILENCE, RECONNECT, GOOD_ANSWER),
    steps(
        QOS_1, QOS_2, SKIP, b'{"stream":"kaa-dcx","seq":7}', b'{"stream":"kaa-dcx","seq":0}', b"{}", SILENCE
    ),
]


class Target(NamedTuple):
    """`run` takes an input; `seeds` are good ones to begin with."""

    run: Callable[[bytes], object]
    seeds: list[bytes]


TLS_SESSIONS = [
    steps(SHAKE_HANDS, SHAKE_HANDS, CONNECT, PUBLISH, IDENTIFY, CONFIRM, ANSWER),
    steps(SHAKE_HANDS, RAW, b"\x16\x03\x03\x00\x05\x01\x00\x00\x01\x00", RAW, SHAKE_HANDS, LATE),
    steps(
        SHAKE_HANDS, SHAKE_HANDS, CONNECT, RAW, b"\x17\x03\x03\x00\x13" + bytes(19), OPEN, SHAKE_HANDS, LATER
    ),
    steps(SHAKE_HANDS, SHAKE_HANDS, RAW, b"\x15\x03\x03\x00\x02\x01\x00", LOSE),
]
DTLS_SHAKE = (SHAKE_HANDS,) * 4
DTLS_SESSIONS = [
    steps(*DTLS_SHAKE, COAP[0], IDENTIFY, ANSWER, SOON),
    steps(*DTLS_SHAKE, COAP[1], RAW, b"\x17\xfe\xfd\x00\x01" + bytes(20), LATER, RAW, COAP[0], LATE),
    steps(
        SHAKE_HANDS,
        SHAKE_HANDS,
        RAW,
        b"\x16\xfe\xfd" + bytes(8) + b"\x00\x0c\x01" + bytes(11),
        LATER,
        SHAKE_HANDS,
    ),
    steps(
        *DTLS_SHAKE,
        RAW,
        b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28",
        RAW,
        *DTLS_SHAKE,
        COAP[2],
        PUSH,
        LATE,
    ),
]


@functools.cache
def _simulation(protocol: str) -> Simulation | NatsSimulation | DurableSimulation | BridgeSimulation:
    if protocol in ("tls", "dtls"):
        return EncryptedSimulation(protocol)
    if protocol == "bridge":
        return BridgeSimulation()
    if protocol == "durable":
        return DurableSimulation()
    return NatsSimulation() if protocol == "nats" else Simulation(protocol)


def _session(protocol: str) -> Callable[[bytes], object]:
    def play(data: bytes) -> None:
        simulation = _simulation(protocol)
        simulation.play(data)
        if simulation.loop.time() > CLOCK_MAX_S:
            _simulation.cache_clear()

    return play


SESSIONS = {
    "MQTT session": Target(_session("mqtt"), MQTT_SESSIONS),
    "WebSocket session": Target(_session("websocket"), WEBSOCKET_SESSIONS),
    "HTTP session": Target(_session("http"), HTTP_SESSIONS),
    "HTTP client session": Target(_session("http clients"), HTTP_CLIENT_SESSIONS),
    "CoAP session": Target(_session("coap"), COAP_SESSIONS),
    "CoAP stream session": Target(_session("coap stream"), COAP_STREAM_SESSIONS),
    "CoAP websocket session": Target(_session("coap websocket"), COAP_WEBSOCKET_SESSIONS),
    "KP UDP session": Target(_session("kpudp"), KPUDP_SESSIONS),
    "MQTT-SN session": Target(_session("mqtt-sn"), MQTT_SN_SESSIONS),
    "plug-in session": Target(_session("plug-in"), PLUGIN_SESSIONS),
    "plug-in datagram session": Target(_session("plug-in datagrams"), PLUGIN_SESSIONS),
    "bridge session": Target(_session("bridge"), BRIDGE_SESSIONS),
    "TLS session": Target(_session("tls"), TLS_SESSIONS),
    "DTLS session": Target(_session("dtls"), DTLS_SESSIONS),
    "NATS session": Target(_session("nats"), NATS),
    "JetStream session": Target(_session("durable"), JETSTREAM_SESSIONS),
}
TARGETS = {
    **{name: Target(functools.partial(check, decoder), decoder.seeds) for name, decoder in DECODERS.items()},
    **SESSIONS,
}


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept of a target: found by libFuzzer, each for something that no other reaches."""
    return [path.read_bytes() for path in sorted((CORPUS / name.replace(" ", "-")).glob("*"))]
