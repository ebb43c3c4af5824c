"""The discard server answers every load, and takes nothing that is broken."""

import socket
from contextlib import suppress

import pytest
from kaa_bench.compare.instruments import Discard, LoadGenerator
from kaa_bench.connecting import LoadSpec
from kaa_bench.packets import COAP_CON, COAP_RST, coap_empty

SPECS = [
    LoadSpec("mqtt", 3, qos=0, window=16),
    LoadSpec("mqtt", 3, qos=1, window=16),
    LoadSpec("mqtt", 3, qos=1, window=16, mqtt_version="5"),
    LoadSpec("mqtt", 3, qos=0, window=16, mqtt_version="5", aliased=True),
    LoadSpec("http", 3),
    LoadSpec("coap", 3),
    LoadSpec("kpudp", 3, window=16),
    LoadSpec("mqtt-sn", 3, qos=1, window=8),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.protocol}{spec.qos}")
def test_every_message_of_a_load_is_answered(spec: LoadSpec) -> None:
    with Discard(spec.protocol) as discard, LoadGenerator(spec, discard.address) as generator:  # type: ignore[arg-type]
        for _ in range(2):
            result = generator.run(messages=1000)
            assert (result.sent, result.errors) == (1000, {})
            assert result.acknowledged == (0 if spec.protocol == "mqtt" and spec.qos == 0 else 1000)
        assert discard.cpu_seconds() > 0


@pytest.mark.parametrize(
    ("protocol", "data"),
    [
        ("mqtt", b"\x30\xff\xff\xff\xff\xff"),
        ("mqtt", b"\x32\x03\x00\x09x"),
        ("mqtt", b"\x30\xff\x7f" + b"x" * 5000),
        ("http", b"POST / HTTP/1.1\r\n\r\n"),
        ("http", b"x" * 5000),
    ],
)
def test_a_broken_message_closes_the_connection(protocol: str, data: bytes) -> None:
    with Discard(protocol) as discard, socket.create_connection(discard.address, 20) as connected:  # type: ignore[arg-type]
        connected.sendall(data)
        # Closing with bytes unread is a reset.
        with suppress(ConnectionResetError):
            assert connected.recv(1) == b""


def test_datagrams_that_are_none_are_ignored_and_a_ping_is_answered() -> None:
    with Discard("coap") as discard, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.settimeout(20)
        device.connect(discard.address)
        for broken in (b"", b"\x40", b"\x50\x02\x00\x01", b"\x4f\x02\x00\x01", b"\x80\x02\x00\x01"):
            device.send(broken)
        device.send(coap_empty(COAP_CON, 9))
        assert device.recv(64) == coap_empty(COAP_RST, 9)
