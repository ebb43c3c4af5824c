"""Mutation fuzzing of every decoder that reads what a peer has sent. See README.md for longer runs.

A decoder must answer any bytes with a value or its own error, believe no more bytes than there are, and say the same
of the same bytes. Where its Python face takes any bytes-like object, the input ends where a page without access
begins: reading a single byte too much ends the test run.
"""

import ctypes
import mmap
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from gateway.errors import GatewayError, MalformedAvro, ProtocolError
from gateway.kp.correlation import Correlator
from gateway.kp.resource_path import parse, request_id_of
from gateway.transports.http_parser import RequestLimits, read_requests
from gateway.transports.http_target import resource_path
from gateway.transports.mqtt_session import filter_matches
from gateway.wire import avro, esp, mqtt, nats

ITERATIONS = int(os.environ.get("ITERATIONS", "50000"))
"""Inputs for each decoder."""
SEED = int(os.environ.get("SEED", "1"))
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
CORRELATOR = Correlator(0xABCDEF, bytes(range(16)))
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
    "MQTT 3.1": Decoder(lambda data: mqtt.decode(data, mqtt.LEVEL_3_1, 4096), ProtocolError, True, MQTT),
    "NATS": Decoder(nats.decode, ProtocolError, True, NATS),
    "HTTP": Decoder(whole(lambda data: read_requests([data], LIMITS)), (), False, HTTP),
    "HTTP target": Decoder(
        whole(lambda data: resource_path(data, b"/kpc")), (), False, [b"/kpc/kp1/v/dcx/t%20/x?q#f", b"*"]
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


class GuardedMemory:
    """Memory behind whose last byte the next one must not be touched."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, INPUT_SIZE_MAX + mmap.PAGESIZE)
        self._view = memoryview(self._memory)
        libc = ctypes.CDLL(None, use_errno=True)
        guard = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + INPUT_SIZE_MAX
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_int(0)):
            raise OSError(ctypes.get_errno(), "mprotect")

    def holding(self, data: bytearray) -> memoryview:
        """The same bytes, with the guard behind them; until the next call."""
        view = self._view[INPUT_SIZE_MAX - len(data) : INPUT_SIZE_MAX]
        view[:] = data
        return view


@pytest.mark.parametrize("name", DECODERS)
def test_any_bytes(name: str) -> None:
    decoder = DECODERS[name]
    guarded = GuardedMemory()
    outcomes: dict[str, int] = {}
    for data in mutations(decoder.seeds, ITERATIONS, random.Random(f"{SEED} {name}")):
        taken = guarded.holding(data) if decoder.takes_any_buffer else bytes(data)
        try:
            value, consumed = decoder.decode(taken)
            outcome = "nothing yet" if consumed == 0 else "a value"
            assert 0 <= consumed <= len(data), data.hex()
            if consumed < len(data):
                # What follows has no part in it.
                assert decoder.decode(bytes(data[:consumed])) == (value, consumed) or consumed == 0, (
                    data.hex()
                )
        except decoder.errors as error:
            outcome = error.reason
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} of {data.hex()}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    # The inputs reach beyond the first check, and most of the reasons.
    assert outcomes["a value"] > ITERATIONS // 20
    if decoder.errors:
        assert len(outcomes) > 2
