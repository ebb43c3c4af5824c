"""Attacks that have worked on others: brokers, CoAP and HTTP servers, by the identifier under which they are known.

Request smuggling is in tests/unit/http/test_parser.py (`SMUGGLING`: CVE-2022-32213, -32214, -32215, -35256,
CVE-2023-30589, CVE-2024-27982), and against the whole server in tests/conformance/test_http_requests.py. Stalled TLS
handshakes are in tests/unit/net/test_tls.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire import coap
from kaa_gateway.wire.esp import encode_extension_data

from tests.fuzz.session_seeds import CONNECT, PUBLISH, UPGRADE, frame
from tests.fuzz.simulation import Simulation
from tests.unit.kp.worker_double import APP, WorkerDouble

TOPIC = f"kp1/{APP}/dcx/t/json"


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


# ---------------------------------------------------------------- MQTT


def test_cve_2017_7651_a_huge_remaining_length_before_connect(worker: WorkerDouble) -> None:
    """Mosquitto allocated what the header announced, for clients that nobody had admitted."""
    device = worker.unconnected()
    before = sys.getallocatedblocks()
    device.send_bytes(b"\x10\xff\xff\xff\x7f")
    assert device.closed
    assert worker.reason("closed", "mqtt_packet_too_large") == 1
    assert sys.getallocatedblocks() - before < 1000


@pytest.mark.parametrize("packet_type", [0, *range(2, 16)])
def test_cve_2023_0809_a_first_packet_that_is_no_connect_holds_nothing(
    worker: WorkerDouble, packet_type: int
) -> None:
    """Mosquitto kept up to 256 MB of it; here the first byte ends the connection."""
    device = worker.unconnected()
    device.send_bytes(bytes([packet_type << 4]))
    assert device.closed
    assert worker.reason("closed", "mqtt_first_packet_not_connect") == 1


def test_cve_2023_28366_a_qos_2_identifier_used_again_and_again(worker: WorkerDouble) -> None:
    """Mosquitto leaked a message for each PUBLISH whose identifier was still in use."""
    device = worker.device()
    device.publish(TOPIC, b"first", 2, 7)
    worker.identify()
    device.publish(TOPIC, bytes(30_000), 2, 7)
    before = sys.getallocatedblocks()
    for _ in range(2000):
        device.publish(TOPIC, bytes(30_000), 2, 7)
    assert sys.getallocatedblocks() - before < 500
    # The identifier names another message once; its repetitions are no messages.
    assert [len(data.payload) for _, data in worker.published()] == [len(b"first"), 30_000]
    worker.confirm()
    assert set(device.received()) == {mqtt.Pubrec(7)}


@pytest.mark.parametrize("packet_type", [0, 2, 9, 11, 13, 15])
def test_cve_2021_28166_packets_of_the_server_from_a_client(worker: WorkerDouble, packet_type: int) -> None:
    """A CONNACK from a client that was connected made Mosquitto follow a null pointer."""
    device, neighbour = worker.device(), worker.device()
    device.send_bytes(bytes([packet_type << 4, 2, 0, 1]))
    assert device.closed
    assert worker.reason("closed", "mqtt_packet_of_the_server") == 1
    assert not neighbour.closed


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_cve_2021_34432_a_topic_of_no_length(worker: WorkerDouble, qos: int) -> None:
    device = worker.device()
    device.send_bytes(bytes([0x30 | qos << 1]) + (b"\x04\0\0{}" if qos == 0 else b"\x06\0\0\0\1{}"))
    assert device.closed
    assert worker.reason("closed", "mqtt_empty_topic") == 1
    assert worker.published() == []


@pytest.mark.parametrize("topic", ["$", "$x", "$SYS/broker/uptime", "$SYS", "$share/g/a", "/$SYS"])
def test_cve_2018_12543_a_topic_that_begins_with_a_dollar(worker: WorkerDouble, topic: str) -> None:
    """One that was not $SYS ended Mosquitto by an assertion. Here such topics are nobody's."""
    device = worker.device()
    device.publish(topic, b"x", 1, 1)
    device.send(mqtt.Subscribe(2, ((topic, 1), ("$SYS/#", 1))))
    worker.confirm()
    assert [type(packet).__name__ for packet in device.received()] == ["Suback", "Puback"]
    assert worker.published() == []


@pytest.mark.parametrize("name", ["+", "#", "/", "+/#", "a/b", "dcx/+"])
def test_cve_2017_7650_wildcards_in_client_ids_and_user_names(worker: WorkerDouble, name: str) -> None:
    """In Mosquitto they took part in access control patterns. Here neither is put into a topic or a subject."""
    victim = worker.device("victim", clean=False)
    device = worker.unconnected()
    device.send(mqtt.Connect(name, False, 0, None, name, b"secret"))
    worker.admit()
    assert device.received() == [mqtt.Connack(False, 0)]
    assert not victim.closed
    device.publish(TOPIC, b"mine", 0)
    worker.identify()
    ((subject, data),) = worker.published()
    assert (subject, data.endpoint_id) == ("kaa.v1.service.dcx.esp.ClientData", "endpoint-t")


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(
    "length", [b"\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x00", b"\xff\xff\xff\xff\xff"]
)
def test_cve_2026_21888_a_remaining_length_of_five_bytes(
    worker: WorkerDouble, connected: bool, length: bytes
) -> None:
    """NanoMQ read on; MQTT has at most four (2.2.3). Four of them are enough to know."""
    device = worker.device() if connected else worker.unconnected()
    device.send_bytes((b"\x30" if connected else b"\x10") + length[:4])
    assert device.closed
    assert worker.reason("closed", "mqtt_malformed_remaining_length") == 1


def test_cve_2019_11779_topics_of_thousands_of_levels(worker: WorkerDouble) -> None:
    """Mosquitto went through the levels of a subscription by recursion, until its stack ended."""
    device = worker.device()
    deep = "/" * 65_000
    device.send(mqtt.Subscribe(1, ((deep, 1),)))
    device.send(mqtt.Subscribe(4, (("a" + "/+" * 30_000, 0),)))
    device.publish(deep, b"", 1, 2)
    device.publish(f"kp1/{APP}/dcx/t" + deep[:60_000], b"", 1, 3)
    worker.confirm()
    first, second, error, *acknowledgements = device.received()
    assert (first, second) == (mqtt.Suback(1, (0x80,)), mqtt.Suback(4, (0x80,)))
    assert error.topic.endswith("/error")
    assert [packet.packet_id for packet in acknowledgements] == [2, 3]
    assert worker.published() == []


# ---------------------------------------------------------------- integers


@pytest.mark.parametrize("number", [2**31, 2**32, 2**63, 2**64, 10**50])
def test_a_request_id_beyond_avro_int_is_a_level_of_the_path(worker: WorkerDouble, number: int) -> None:
    device = worker.device()
    device.publish(f"{TOPIC}/{number}")
    worker.identify()
    ((_, data),) = worker.published()
    assert (data.request_id, data.resource_path) == (None, f"/json/{number}")


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**62, -(2**63)])
def test_a_status_beyond_avro_int_is_malformed(worker: WorkerDouble, number: int) -> None:
    device = worker.device()
    datum = encode_extension_data("x", 0, 0, APP, "dcx", "endpoint-t", "/json", None, b"", 0, None)
    assert datum.endswith(b"\x00\x00")  # status code, and no reason phrase
    zigzag, encoded = (number << 1) ^ (number >> 63), b""
    while zigzag > 0x7F:
        encoded += bytes([zigzag & 0x7F | 0x80])
        zigzag >>= 7
    worker.deliver(datum[:-2] + encoded + bytes([zigzag]) + b"\x00")
    assert worker.reason("dropped", "avro_int_out_of_range") == 1
    assert device.received() == []


# ---------------------------------------------------------------- CoAP


def reason_of(datagram: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        coap.decode(datagram)
    return caught.value.reason


def test_cve_2020_12887_option_numbers_that_wrap_around() -> None:
    """mbed-coap added deltas up in 16 bits, so that a critical option came round as another one."""
    delta = b"\xe0" + (65_535 - 269).to_bytes(2)
    assert coap.decode(b"\x40\x02\0\1" + delta).options == ((65_535, b""),)
    assert reason_of(b"\x40\x02\0\1" + delta + b"\x10") == "coap_option_number"
    assert reason_of(b"\x40\x02\0\1" + delta + b"\xe0\xff\xff" + b"\xb3kp1") == "coap_option_number"


@pytest.mark.parametrize("size", range(9, 16))
def test_ghsa_p9hp_extended_token_lengths(size: int) -> None:
    """RIOT took token lengths of 9 to 15 for bytes that were not there (RFC 8974 section 2.1: 15 is reserved)."""
    reason = "coap_token_length" if size == 15 else "coap_truncated_token"
    assert reason_of(bytes([0x40 | size]) + b"\x02\0\1" + b"\xff" * 8) == reason


@pytest.mark.parametrize("option", ["0effff", "eeffffffff", "0dff", "0d", "0eff", "d0", "e000"])
def test_cve_2024_31031_lengths_beyond_the_datagram(option: str) -> None:
    """libcoap's sums of lengths overflowed. Each is compared with what is left, and never added up."""
    assert reason_of(b"\x40\x02\0\1" + bytes.fromhex(option)) == "coap_truncated_option"


def test_cve_2019_9750_amplification() -> None:
    """IoTivity answered small requests from forged addresses with much; here it is three bytes for one at most."""
    request = coap.encode(coap.Message(0, 1, 1, b"", ((11, b".well-known"), (11, b"core"))))
    with Simulation("coap") as simulation:
        received = simulation.bytes_for(request)
        simulation.end()
    assert 0 < received <= 3 * len(request)


# ---------------------------------------------------------------- WebSocket


def test_cve_2026_25627_frames_shorter_than_the_packet() -> None:
    """NanoMQ took a frame for a packet, and read the length that the packet announced."""
    stream = CONNECT + PUBLISH
    with Simulation("websocket") as simulation:
        simulation.send(UPGRADE + b"".join(frame(stream[at : at + 1]) for at in range(len(stream))))
        assert [data.payload for _, data in simulation.forwarded] == [b"{}"]
        simulation.end()
        # And one that never has the rest of it.
        simulation.send(UPGRADE + frame(CONNECT) + frame(b"\x30\xff\x7f\x00\x10kp1"))
        assert simulation.forwarded == []
        simulation.end()


def test_cve_2026_27571_nothing_is_decompressed() -> None:
    """nats-server inflated what strangers sent. No extension is agreed on here, so none may be used."""
    offer = UPGRADE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with Simulation("websocket") as simulation:
        answer = simulation.response_to(offer)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in answer.lower()
        simulation.end()
        simulation.send(offer + frame(CONNECT + PUBLISH, 0xC2))
        assert simulation.forwarded == []
        simulation.end()


# ---------------------------------------------------------------- HTTP


@pytest.mark.parametrize("tail", [b"X", b"POST /kp1/smuggled", b"\0" * 100, b"\r\nGET"])
def test_bytes_beyond_content_length_are_another_request_or_nothing(tail: bytes) -> None:
    head = b"POST /kp1/app_v1/dcx/t/json HTTP/1.1\r\nHost: gateway\r\nContent-Length: 2\r\n\r\n"
    with Simulation("http") as simulation:
        simulation.send(head + b"{}" + tail)
        assert [data.payload for _, data in simulation.forwarded] == [b"{}"]
        simulation.end()
