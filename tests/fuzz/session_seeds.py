"""Sessions to begin with, for each transport: what devices send, and what happens around them."""

import base64

from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.wire import coap, coap_stream

from tests.fuzz import bridged
from tests.fuzz.decoders import COAP, COAP_STREAM, KPUDP, PATH, STREAM_REQUEST
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
)  # fmt: skip
from tests.fuzz.simulation import steps
from tests.support import mqtt_sn as sn
from tests.support.mqtt5 import codec as mqtt5
from tests.support.mqtt5.packets import Connect, Disconnect, Publish, Subscribe, Will
from tests.support.mqtt5.properties import Property

WAIT = b"POST /kp1/app_v1/dcx/t/json?wait=5%s HTTP/1.1\r\nHost: g\r\n\r\n"
EVENTS = b"GET /kp1/app_v1/dcx/t HTTP/1.1\r\nHost: g\r\nAccept: text/event-stream\r\n\r\n"
COAP_WAIT = coap.encode(coap.Message(0, 2, 9, b"w", (*PATH, (15, b"wait=5")), b""))
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
