"""Limits of connections and sources: what is paused, for how long, and what is closed. The clock is the test's.

Sources: docs/configuration.md, kaa.kpc.limits; RFC 4291 for what an IPv6 source is.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Connect, Pingreq, Puback, Pubcomp, Publish, Pubrec, Subscribe, encode
from kaa_gateway.coap.server import CoapServer
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.wire import coap
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.support.coap import SETTINGS
from tests.support.nats import HOST
from tests.unit.kp.worker_double import APP, UNLIMITED, WorkerDouble

TOPIC = f"kp1/{APP}/dcx/t/json"
PING = encode(Pingreq())


@contextmanager
def limited(**admission: float) -> Iterator[WorkerDouble]:
    with WorkerDouble(admission=admission) as worker:
        yield worker


def set_limits(worker: WorkerDouble, **limits: float) -> None:
    """Set limits as a new configuration does; those that are not named are off."""
    settings: dict[str, Any] = {**UNLIMITED, **limits}
    worker.admission.set_limits(**settings)


def test_a_connection_beyond_its_rate_of_messages_is_not_read_until_it_is_within_it() -> None:
    with limited(message_rate=10) as worker:
        device = worker.device()  # its CONNECT counts
        device.send(*[Publish(TOPIC, b"%d" % number) for number in range(25)])
        worker.identify()
        # What had been read is taken, whatever its number.
        assert [data.payload for _, data in worker.published()] == [b"%d" % number for number in range(25)]
        assert not device.reading
        worker.loop.pass_time(1.5)
        assert not device.reading
        worker.loop.pass_time(0.2)  # 16 too many, at 10 a second
        assert device.reading
        assert worker.reason("paused", "connection_rate") == 1


def test_a_connection_within_its_rate_is_never_paused() -> None:
    with limited(message_rate=10, byte_rate=1000, source_message_rate=20, source_byte_rate=2000) as worker:
        device = worker.device()
        for _ in range(100):
            worker.loop.pass_time(0.1)
            device.send(Pingreq())
            assert device.reading
        assert not [event for event, _ in worker.counters.by_reason() if event == "paused"]


def test_packets_of_all_kinds_count() -> None:
    with limited(message_rate=10) as worker:
        device = worker.device()
        device.send_bytes(PING * 9)
        assert device.reading
        device.send_bytes(PING)
        assert not device.reading


def test_bytes_count_even_of_a_packet_that_never_ends() -> None:
    with limited(byte_rate=1000) as worker:
        device = worker.device()
        device.send_bytes(encode(Publish(TOPIC, bytes(5000)))[:3000])
        assert not device.reading
        worker.loop.pass_time(3)
        assert device.reading
        assert worker.reason("paused", "connection_rate") == 1


def test_the_connections_of_a_source_share_its_rate() -> None:
    with limited(source_message_rate=10) as worker:
        first, second = worker.device(), worker.device()
        other = worker.device(host="198.51.100.1")
        first.send_bytes(PING * 7)
        assert first.reading
        second.send_bytes(PING * 7)
        assert first.reading  # it has sent nothing since
        assert not second.reading
        other.send_bytes(PING * 7)
        assert other.reading
        assert worker.reason("paused", "source_rate") == 1


def test_a_source_that_comes_back_has_no_full_bucket_again() -> None:
    with limited(source_byte_rate=1000) as worker:
        device = worker.device()
        device.send_bytes(encode(Publish(TOPIC, bytes(3000)))[:2900])
        device.drop()
        again = worker.device()
        assert not again.reading


def test_a_paused_connection_is_not_taken_for_a_silent_one() -> None:
    with limited(message_rate=1) as worker:
        device = worker.device(keep_alive=10)
        device.send_bytes(PING * 100)
        for _ in range(98):
            worker.loop.pass_time(1)
            worker.check()
            assert not device.closed
            assert not device.reading
        worker.loop.pass_time(2)
        assert device.reading
        for _ in range(17):
            worker.loop.pass_time(1)
            worker.check()
        assert device.closed
        assert worker.reason("closed", "mqtt_keep_alive_timeout") == 1


def test_connections_of_a_source() -> None:
    with limited(source_connections=2) as worker:
        first, second = worker.device(), worker.device()
        assert worker.unconnected().closed
        assert worker.reason("closed", "too_many_connections_of_source") == 1
        assert not worker.device(host="198.51.100.1").closed
        first.drop()
        assert not worker.device().closed
        assert not second.closed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_what_a_source_is(one: str, other: str, same: bool) -> None:
    with limited(source_connections=1) as worker:
        worker.device(host=one)
        assert worker.unconnected(host=other).closed == same


def test_sources_are_forgotten_when_there_are_many() -> None:
    with limited(source_message_rate=10, sources_max=5) as worker:
        kept = worker.device(host="192.0.2.99")
        for number in range(1, 21):
            worker.device(host=f"192.0.2.{number}").drop()
            assert worker.admission.source_count() <= 5
        kept.drop()


def test_sources_without_rates_are_known_only_while_they_are_connected() -> None:
    with limited(source_connections=2) as worker:
        device = worker.device()
        assert worker.admission.source_count() == 1
        device.drop()
        assert worker.admission.source_count() == 0


def test_the_oldest_half_open_connection_goes_for_a_new_one() -> None:
    with limited(half_open_max=3) as worker:
        waiting = [worker.unconnected() for _ in range(3)]
        late = worker.unconnected()
        assert [device.closed for device in waiting] == [True, False, False]
        assert worker.reason("closed", "half_open_connections") == 1
        for device in (*waiting[1:], late):
            device.send(Connect("", True, 0))
            worker.admit()
        # They are connected, though nothing was read of them since: none of them has to go.
        more = [worker.unconnected() for _ in range(3)]
        assert not any(device.closed for device in (*waiting[1:], late, *more))


def test_limits_change_for_connections_that_are_open() -> None:
    with limited() as worker:
        device = worker.device()
        device.send_bytes(PING * 1000)
        assert device.reading
        set_limits(worker, message_rate=10)
        # What was sent before is not charged.
        device.send_bytes(PING)
        assert device.reading
        device.send_bytes(PING * 20)
        assert not device.reading
        worker.loop.pass_time(5)
        set_limits(worker, byte_rate=100)
        device.send_bytes(PING * 40)
        assert device.reading
        device.send_bytes(PING * 70)
        assert not device.reading
        worker.loop.pass_time(5)
        set_limits(worker)
        device.send_bytes(PING * 1000)
        assert device.reading
        # Once more: what was sent without a limit is not charged either.
        set_limits(worker, message_rate=10)
        device.send_bytes(PING)
        assert device.reading


def test_limits_of_sources_change() -> None:
    with limited(source_connections=2) as worker:
        first, second = worker.device(), worker.device()
        assert worker.unconnected().closed
        set_limits(worker, source_connections=3)
        assert not worker.device().closed
        assert worker.unconnected().closed
        set_limits(worker, source_message_rate=10)
        for device in (first, second):
            device.send_bytes(PING * 9)
        assert not second.reading
        set_limits(worker, source_byte_rate=100)
        other = worker.device(host="198.51.100.1")
        other.send_bytes(PING * 100)
        assert not other.reading
        # A source without connections and rates is forgotten.
        other.drop()
        worker.loop.pass_time(100)
        assert worker.admission.source_count() == 2
        set_limits(worker)
        assert worker.admission.source_count() == 1


def test_the_limit_of_half_open_connections_changes() -> None:
    with limited() as worker:
        waiting = [worker.unconnected() for _ in range(3)]
        set_limits(worker, half_open_max=3)
        worker.unconnected()
        assert [device.closed for device in waiting] == [True, False, False]


class DatagramWorker:
    """A CoAP server on a socket, read when the test says so."""

    def __init__(self, worker: WorkerDouble, **settings: Any) -> None:
        loop: Any = worker.loop
        core = CoapServer(
            worker.uplink,
            worker.sessions,
            worker.counters,
            {},
            **{**SETTINGS, **settings},
            now=loop.time(),
        )
        self.socket = UdpSocket(loop, core, worker.counters)
        self.socket.limit(worker.admission)
        self.socket.start(HOST, 0, reuse_port=False)


@pytest.mark.parametrize(
    ("rates", "taken"), [({"source_message_rate": 10}, 10), ({"source_byte_rate": 100}, 8)]
)
def test_datagrams_beyond_the_rate_of_their_source_are_dropped(rates: dict[str, int], taken: int) -> None:
    with limited(**rates) as worker, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        server = DatagramWorker(worker)
        device.connect((HOST, server.socket.port))
        datagram = coap.encode(coap.Message(1, 1, 1, b"", (), b"123456789"))
        assert len(datagram) == 14

        def send(count: int) -> int:
            before = worker.reason("dropped", "source_rate")
            for _ in range(count):
                device.send(datagram)
            server.socket.on_readable()
            return count - (worker.reason("dropped", "source_rate") - before)

        assert send(50) == taken
        worker.loop.pass_time(100)
        assert send(50) == taken
        set_limits(worker)
        assert send(50) == 50
        set_limits(worker, **rates)
        worker.loop.pass_time(100)
        assert send(50) == taken
        server.socket.stop()


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_client_does_not_acknowledge_is_bounded_in_bytes(qos: int) -> None:
    """A megabyte in flight and a megabyte behind it, of messages that are large enough to reach that first."""
    payload = bytes(300_000)
    push = ExtensionData("push", 0, 0, APP, "dcx", "endpoint-t", "/json", None, payload, 200, None)
    with WorkerDouble() as worker:
        device = worker.device()
        device.send(Subscribe(1, ((f"kp1/{APP}/dcx/t/#", qos),)))
        worker.identify()
        device.received()
        for number in range(20):
            worker.deliver(encode_extension_data(*push._replace(correlation_id=f"push-{number}")))
        sent = device.received()
        assert len(sent) == 3
        assert worker.reason("dropped", "session_queue_full") == 20 - 3 - 3
        for packet in sent:
            device.send(
                *(
                    (Puback(packet.packet_id),)
                    if qos == 1
                    else (Pubrec(packet.packet_id), Pubcomp(packet.packet_id))
                )
            )
        assert sum(isinstance(packet, Publish) for packet in device.received()) == 3
