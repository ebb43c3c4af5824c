"""What the fuzzing of each decoder begins with: valid inputs, and the corpus in the tree."""

from tests.fuzz.decoders import (
    CLIENT_DATA,
    COAP,
    COAP_STREAM,
    EXTENSION_DATA,
    HTTP,
    KPUDP,
    KPUDP_SECURE,
    MQTT,
    MQTT_SN,
    NATS,
    PROXY_HEADERS,
)
from tests.fuzz.mqtt5_seeds import MQTT_5
from tests.fuzz.session_seeds import CONNECT_5, frame
from tests.fuzz.targets import CORPUS

_ONLY_A_NAME = b"\x10\x06\x00\x04MQTT"
_SUBJECT_HEADER = b"NATS/1.0 503\r\nOther: x\r\nNats-Subject: \tkaa.v1.x \r\n\r\n"
SEEDS: dict[str, list[bytes]] = {
    "coap": COAP,
    "coap-stream": COAP_STREAM,
    "kpudp": KPUDP,
    "kpudp-secure": [*KPUDP_SECURE, b"\xb2\x01" + bytes(1228)],
    "mqtt-sn": [*MQTT_SN, b"\x04\xfe\x00a\x02\x16"],
    "client-data": CLIENT_DATA,
    "extension-data": EXTENSION_DATA,
    "websocket": [frame(b"xx"), b"\x82\xfe\x00\x80abcd" + bytes(128), b"\x88\x80abcd"],
    "proxy-header": PROXY_HEADERS,
    "avro": [b"\x00\x02", b"\x01\x80\x01", b"\x02\x00", b"\x03\x06foo", b"\x04\x00"],
    "http": [*HTTP, b'1f;a=b;c="\\""\r\n', b"X: a \t\r\nConnection: close, keep-alive\r\n\r\n"],
    "query": [b"wait=30", b"batch=16&wait=200", b"answer=no", b"a&wait=99999&&batch=1001&batch"],
    "nats": [
        *NATS,
        b"HMSG a 9 %d %d\r\n%s\r\n" % (len(_SUBJECT_HEADER), len(_SUBJECT_HEADER), _SUBJECT_HEADER),
        b"MSG " + b"a" * 4096,
    ],
    "mqtt-3.1.1": [*MQTT, _ONLY_A_NAME, b"\xe0\x00"],
    "mqtt-5": [*MQTT_5, CONNECT_5, _ONLY_A_NAME],
}
"""Inputs by decoder."""
SIZES_MAX = {"nats": 4200, "kpudp-secure": 1300}
"""Bytes of an input by decoder, where 256 do not reach a bound of the decoder."""
_FOLDERS = {
    "coap": "CoAP",
    "kpudp": "KP-UDP",
    "client-data": "ClientData",
    "extension-data": "ExtensionData",
    "http": "HTTP",
    "nats": "NATS",
    "mqtt-3.1.1": "MQTT-3.1.1",
}
CORPORA = {decoder: [CORPUS / _FOLDERS[decoder]] if decoder in _FOLDERS else [] for decoder in SEEDS}
"""The folders of the corpus by decoder."""
