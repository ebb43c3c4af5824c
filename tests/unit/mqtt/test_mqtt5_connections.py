"""MQTT 5: CONNECT, CONNACK, session expiry, wills, the end of a connection (OASIS, sections 3.1, 3.2, 3.14)."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import Client

from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Pubrec,
    Suback,
    Subscribe,
    Will,
)  # fmt: skip
from tests.support.mqtt5.properties import Property
from tests.unit.kp.worker_double import APP, WorkerDouble
from tests.unit.mqtt.mqtt5_device import connect, lasting, unadmitted

TOPIC = f"kp1/{APP}/dcx/t/json"
ALICE = Client("alice", None)
SESSION_EXPIRY = 3600
"""What the double grants at most."""


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


def will(delay: int | None = None, **more: Any) -> Will:
    properties = () if delay is None else ((Property.WILL_DELAY_INTERVAL, delay),)
    return Will(TOPIC, b"gone", properties=properties, **more)


def wills(worker: WorkerDouble) -> int:
    """Published wills, since the last call."""
    worker.identify()
    return len(worker.published())


def tick(worker: WorkerDouble, seconds: float) -> None:
    """Let time pass."""
    worker.loop.pass_time(seconds)
    worker.stored.publish_wills(worker.loop.now)
    worker.stored.expire(worker.loop.now)


class TestConnack:
    def test_what_there_is_not(self, worker: WorkerDouble) -> None:
        _, connack = connect(worker)
        assert connack.get(Property.RETAIN_AVAILABLE) == 0
        assert connack.get(Property.SHARED_SUBSCRIPTION_AVAILABLE) == 0
        assert connack.get(Property.TOPIC_ALIAS_MAXIMUM) == 8
        assert connack.get(Property.MAXIMUM_PACKET_SIZE) == 65_536
        for absent in (Property.MAXIMUM_QOS, Property.SERVER_KEEP_ALIVE, Property.ASSIGNED_CLIENT_IDENTIFIER):
            assert connack.get(absent) is None

    @pytest.mark.parametrize("clean_start", [True, False])
    def test_a_client_identifier_is_assigned(self, worker: WorkerDouble, clean_start: bool) -> None:
        """[MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]."""
        names = set()
        for _ in range(2):
            _, connack = connect(worker, Connect("", clean_start))
            names.add(connack.get(Property.ASSIGNED_CLIENT_IDENTIFIER))
        assert len(names) == 2
        assert None not in names

    def test_the_session_that_an_assigned_identifier_names_can_be_resumed(self, worker: WorkerDouble) -> None:
        device, connack = connect(worker, lasting(""))
        device.drop()
        _, second = connect(worker, lasting(connack.get(Property.ASSIGNED_CLIENT_IDENTIFIER)))
        assert second.session_present

    @pytest.mark.parametrize(
        ("asked", "told"),
        [(0, None), (600, None), (SESSION_EXPIRY + 1, SESSION_EXPIRY), (0xFFFFFFFF, SESSION_EXPIRY)],
    )
    def test_session_expiry_is_told_if_it_differs(
        self, worker: WorkerDouble, asked: int, told: int | None
    ) -> None:
        _, connack = connect(worker, lasting(expiry=asked))
        assert connack.get(Property.SESSION_EXPIRY_INTERVAL) == told

    @pytest.mark.parametrize(("asked", "told"), [(0, 60), (61, 60), (60, None), (5, None)])
    def test_server_keep_alive(self, asked: int, told: int | None) -> None:
        """[MQTT-3.2.2-21]."""
        with WorkerDouble(keep_alive_max=60) as worker:
            _, connack = connect(worker, Connect("id", keep_alive=asked))
        assert connack.get(Property.SERVER_KEEP_ALIVE) == told

    def test_response_information(self, worker: WorkerDouble) -> None:
        _, connack = connect(worker, Connect("id", properties=((Property.REQUEST_RESPONSE_INFORMATION, 1),)))
        assert connack.get(Property.RESPONSE_INFORMATION) == "response/id"

    def test_none_for_a_client_that_cannot_take_it(self, worker: WorkerDouble) -> None:
        """[MQTT-3.1.2-24]."""
        device = unadmitted(worker, Connect("id", properties=((Property.MAXIMUM_PACKET_SIZE, 4),)))
        worker.admit()
        assert device.closed


class TestRefusal:
    @pytest.mark.parametrize(
        ("packet", "code"),
        [
            (Connect("id", properties=((Property.AUTHENTICATION_METHOD, "SCRAM"),)), 0x8C),
            (Connect("id", properties=((Property.AUTHENTICATION_DATA, b"x"),)), 0x82),
            (Connect("id", properties=((Property.RECEIVE_MAXIMUM, 0),)), 0x82),
            (Connect("id", properties=((Property.MAXIMUM_PACKET_SIZE, 0),)), 0x82),
            (Connect("id", properties=2 * ((Property.SESSION_EXPIRY_INTERVAL, 1),)), 0x82),
            (Connect("id", properties=((Property.TOPIC_ALIAS, 1),)), 0x81),
            (Connect("id", properties=((Property.REQUEST_PROBLEM_INFORMATION, 2),)), 0x82),
            (Connect("id", will=will(retain=True)), 0x9A),
            (
                Connect(
                    "id", will=Will(TOPIC, b"\xff", properties=((Property.PAYLOAD_FORMAT_INDICATOR, 1),))
                ),
                0x99,
            ),
            (Connect("a\x01"), 0x81),
            (Connect("a\x85"), 0x81),
            (Connect("id", user_name="a\x7f"), 0x81),
        ],
    )
    def test_connack_says_why(self, worker: WorkerDouble, packet: Connect, code: int) -> None:
        device = unadmitted(worker, packet)
        assert device.only(Connack) == Connack(False, code)
        assert device.closed

    def test_a_client_that_is_not_authenticated(self, worker: WorkerDouble) -> None:
        device = unadmitted(worker, Connect("id"))
        worker.refuse_client(IdentityError(401, "credentials_rejected"))
        assert device.only(Connack).reason_code == 0x87

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (Connect("again"), 0x82),
            (Auth(0x18), 0x82),
            (b"\x20\x03\x00\x00\x00", 0x82),
            (b"\xc1\x00", 0x81),
            (Publish("a/#"), 0x81),
            (Publish(""), 0x82),
            (Publish("a\x1f"), 0x81),
            (Publish(TOPIC, b"", retain=True), 0x9A),
            (Publish(TOPIC, b"\xff", properties=((Property.PAYLOAD_FORMAT_INDICATOR, 1),)), 0x99),
            (Publish(TOPIC, properties=((Property.SUBSCRIPTION_IDENTIFIER, 1),)), 0x82),
            (Publish(TOPIC, properties=((Property.SERVER_REFERENCE, "a"),)), 0x81),
            (Publish(TOPIC, b"x" * 70_000), 0x95),
            (Publish(TOPIC, properties=1001 * ((Property.USER_PROPERTY, ("a", "b")),)), 0x97),
            (b"\x30\x06\x00\x01a\x80\x00x", 0x81),
            (b"\x40\x03\x00\x01\x01", 0x81),
            (b"\x40\x02\x00\x00", 0x81),
            (Subscribe(1, ()), 0x82),
            (Subscribe(1, (("a", 0x30),)), 0x82),
            (Subscribe(1, (("a", 0x40),)), 0x81),
            (Subscribe(1, (("a", 3),)), 0x82),
            (Subscribe(1, (("$share/g/a", 4),)), 0x82),
            (Subscribe(1, (("a", 0),), properties=((Property.SUBSCRIPTION_IDENTIFIER, 0),)), 0x82),
            (Disconnect(0x8B), 0x81),
            (Disconnect(properties=((Property.SESSION_EXPIRY_INTERVAL, 5),)), 0x82),
            (Disconnect(properties=((Property.SERVER_REFERENCE, "a"),)), 0x81),
        ],
    )  # fmt: skip
    def test_disconnect_says_why(self, worker: WorkerDouble, sent: Any, code: int) -> None:
        device, _ = connect(worker)
        device.send(sent)
        assert device.only(Disconnect) == Disconnect(code)
        assert device.closed

    def test_silence(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker, Connect("id", keep_alive=10))
        worker.check()
        worker.loop.pass_time(16)
        worker.check()
        assert device.only(Disconnect).reason_code == 0x8D

    def test_older_versions_are_not_told(self, worker: WorkerDouble) -> None:
        device = worker.device("id")
        device.send_bytes(b"\xc1\x00")
        assert device.received() == []
        assert device.closed

    def test_control_characters_of_older_versions_pass(self, worker: WorkerDouble) -> None:
        device = worker.device("a\x01")
        device.publish("a\x01")
        device.send(mqtt.Pingreq())
        assert device.received() == [mqtt.Pingresp()]


class TestSessionExpiry:
    def test_a_session_lasts_as_long_as_it_may(self, worker: WorkerDouble) -> None:
        """[MQTT-3.1.2-23]."""
        for seconds, present in ((599, True), (601, False)):
            device, _ = connect(worker, lasting(clean_start=True))
            device.drop()
            tick(worker, seconds)
            device, connack = connect(worker, lasting())
            assert connack.session_present is present
            device.drop()

    def test_sessions_end_in_the_order_of_their_expiry(self, worker: WorkerDouble) -> None:
        for name, expiry in (("long", 100), ("short", 10), ("middle", 50)):
            connect(worker, lasting(name, expiry=expiry))[0].drop()
        for seconds, left in ((11, 2), (40, 1), (50, 0)):
            tick(worker, seconds)
            assert worker.stored.offline_count() == left
        assert worker.stored.offline_bytes() == 0

    def test_none_ends_with_its_connection(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker, Connect("id", False))
        device.drop()
        assert worker.stored.offline_count() == 0
        _, connack = connect(worker, Connect("id", False))
        assert not connack.session_present

    def test_clean_start_discards_what_there_was(self, worker: WorkerDouble) -> None:
        """[MQTT-3.1.2-4], [MQTT-3.2.2-2]."""
        connect(worker, lasting())[0].drop()
        _, connack = connect(worker, lasting(clean_start=True))
        assert not connack.session_present

    def test_disconnect_changes_it(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker, lasting())
        device.send(Disconnect(properties=((Property.SESSION_EXPIRY_INTERVAL, 0),)))
        assert device.closed
        device.drop()
        assert worker.stored.offline_count() == 0
        device, _ = connect(worker, lasting())
        device.send(Disconnect(properties=((Property.SESSION_EXPIRY_INTERVAL, 0xFFFFFFFF),)))
        device.drop()
        tick(worker, SESSION_EXPIRY - 1)
        assert worker.stored.offline_count() == 1
        tick(worker, 2)
        assert worker.stored.offline_count() == 0


class TestWill:
    def test_without_a_delay_at_once(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker, lasting(will=will()))
        device.drop()
        assert wills(worker) == 1

    @pytest.mark.parametrize(("code", "count"), [(0x00, 0), (0x04, 1), (0x81, 1)])
    def test_a_disconnect_deletes_it_or_not(self, worker: WorkerDouble, code: int, count: int) -> None:
        """[MQTT-3.14.4-3], [MQTT-3.1.2-10]."""
        device, _ = connect(worker, Connect("id", will=will()))
        device.send(Disconnect(code))
        device.drop()
        assert wills(worker) == count

    def test_after_its_delay(self, worker: WorkerDouble) -> None:
        """[MQTT-3.1.3-9]: and not if its client is back before."""
        device, _ = connect(worker, lasting(will=will(10)))
        device.drop()
        tick(worker, 9)
        assert wills(worker) == 0
        device, _ = connect(worker, lasting(will=will(10)))
        tick(worker, 10)
        assert wills(worker) == 0
        device.drop()
        tick(worker, 11)
        assert wills(worker) == 1

    def test_at_the_end_of_the_session_if_that_is_before(self, worker: WorkerDouble) -> None:
        """[MQTT-3.1.2-8]."""
        connect(worker, lasting(will=will(100), expiry=10))[0].drop()
        assert wills(worker) == 0
        tick(worker, 11)
        assert wills(worker) == 1
        tick(worker, 100)
        assert wills(worker) == 0
        connect(worker, Connect("id", will=will(100)))[0].drop()
        assert wills(worker) == 1

    @pytest.mark.parametrize(("clean_start", "count"), [(False, 0), (True, 1)])
    def test_take_over(self, worker: WorkerDouble, clean_start: bool, count: int) -> None:
        """[MQTT-3.1.4-3]: the session goes on, or ends."""
        first, _ = connect(worker, lasting(will=will(100)), ALICE)
        connect(worker, lasting(clean_start=clean_start), ALICE)
        assert first.only(Disconnect).reason_code == 0x8E
        assert first.closed
        assert wills(worker) == count

    def test_those_that_wait_are_published_at_the_end(self, worker: WorkerDouble) -> None:
        connect(worker, lasting(will=will(100)))[0].drop()
        worker.stored.end_wills()
        assert wills(worker) == 1
        worker.stored.end_wills()
        assert wills(worker) == 0

    def test_expiry(self, worker: WorkerDouble) -> None:
        of_will = Will(TOPIC, b"gone", properties=((Property.MESSAGE_EXPIRY_INTERVAL, 7),))
        connect(worker, Connect("id", will=of_will))[0].drop()
        worker.identify()
        assert [data.timeout for _, data in worker.published()] == [7000]


async def stop(worker: WorkerDouble) -> None:
    """Stop the listener."""
    assert worker.listener is not None
    stopping = asyncio.create_task(worker.listener.stop(1.0))
    await asyncio.sleep(0)
    worker.loop.run()
    worker.loop.pass_time(60)
    await stopping


class TestEnd:
    @pytest.mark.parametrize(
        ("reason", "code"),
        [("disconnected_by_operator", 0x98), ("credentials_revoked", 0x87), ("not_configured", 0x87)],
    )
    def test_a_session_that_is_ended(self, worker: WorkerDouble, reason: str, code: int) -> None:
        device, _ = connect(worker, Connect("id"), ALICE)
        worker.in_slices(worker.revocation.end_clients({"alice"}, reason))
        assert device.only(Disconnect).reason_code == code
        assert device.closed

    @pytest.mark.parametrize("reference", [None, "other.example.com:8883"])
    def test_the_gateway_stops(self, reference: str | None) -> None:
        with WorkerDouble(server_reference=reference) as worker:
            device, _ = connect(worker)
            old = worker.device("old")
            asyncio.run(stop(worker))
            (told,) = device.received()
            assert isinstance(told, Disconnect)
            assert told.reason_code == (0x8B if reference is None else 0x9C)
            assert told.get(Property.SERVER_REFERENCE) == reference
            assert old.received() == []


def test_the_version_is_shown(worker: WorkerDouble) -> None:
    connect(worker, lasting())
    worker.device("old")
    versions = [
        session.describe()["version"] for session in map(worker.sessions.at, range(2)) if session is not None
    ]
    assert versions == ["5.0", "3.1.1"]


def test_packets_in_one_write_and_byte_by_byte(worker: WorkerDouble) -> None:
    for size in (1, 1 << 16):
        device = unadmitted(worker, Connect("id"))
        worker.admit()
        assert isinstance(device.received()[0], Connack)
        octets = b"".join(
            codec.encode(each)
            for each in (
                Subscribe(1, (("a", 1),)), Publish("outside", b"x", 1, 2), Publish("outside", b"x", 2, 3), Pingreq(),
            )
        )  # fmt: skip
        for at in range(0, len(octets), size):
            device.send(octets[at : at + size])
        worker.confirm()
        assert set(device.received()) == {Suback(1, (1,)), Puback(2, 0x10), Pubrec(3), Pingresp()}
