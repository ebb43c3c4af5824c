"""MQTT 5: refusals, responses, expiry, aliases, identifiers and sizes of messages (OASIS, sections 3.3, 3.4, 4.10)."""

from collections.abc import Iterator
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.support.mqtt5.packets import (
    Connect,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)  # fmt: skip
from tests.support.mqtt5.properties import Property
from tests.unit.kp.worker_double import APP, WorkerDouble
from tests.unit.mqtt.mqtt5_device import Mqtt5Device, connect, lasting

TOPIC = f"kp1/{APP}/dcx/t/json"
UNKNOWN = f"kp1/{APP}/nothing/t"
ACKS: dict[int, type[Puback | Pubrec]] = {1: Puback, 2: Pubrec}
NOW_MS = 1 << 42
"""A time in the future, so that nothing has expired."""


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


def push(worker: WorkerDouble, payload: bytes = b"news", path: str = "/json", **fields: Any) -> None:
    """Push to the endpoint of token `t`."""
    datum = ExtensionData(
        "",
        fields.get("timestamp", 0),
        fields.get("timeout", 0),
        APP,
        "dcx",
        "endpoint-t",
        path,
        None,
        payload,
        200,
        None,
    )
    worker.deliver(encode_extension_data(*datum))


def identified(worker: WorkerDouble, packet: Connect | None = None, *filters: tuple[str, int]) -> Mqtt5Device:
    """A client that speaks for the endpoint of token `t`."""
    device, _ = connect(worker, packet)
    device.send(Subscribe(1, filters or ((f"{TOPIC}/#", 0),)))
    worker.identify()
    device.only(Suback)
    return device


class TestRefusal:
    @pytest.mark.parametrize("qos", [1, 2])
    def test_an_acknowledgement_says_why(self, worker: WorkerDouble, qos: int) -> None:
        device, _ = connect(worker)
        device.send(Publish(UNKNOWN, b"", qos, 7))
        worker.confirm()
        answer: Puback | Pubrec = device.only(ACKS[qos])
        assert (answer.packet_id, answer.reason_code) == (7, 0x90)
        assert "Unknown extension instance" in answer.get(Property.REASON_STRING)

    def test_no_reason_string_for_who_wants_none(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker, Connect("id", properties=((Property.REQUEST_PROBLEM_INFORMATION, 0),)))
        device.send(Publish(UNKNOWN, b"", 1, 7))
        worker.confirm()
        assert device.only(Puback) == Puback(7, 0x90)

    def test_an_error_follows_only_to_a_request(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(Publish(f"{UNKNOWN}/5", b"", 1, 7))
        worker.confirm()
        error, answer = sorted(device.received(), key=lambda each: isinstance(each, Puback))
        assert isinstance(error, Publish)
        assert (error.topic, error.qos) == (f"{UNKNOWN}/5/error", 1)
        assert isinstance(answer, Puback)
        assert answer.reason_code == 0x90

    def test_the_status_of_an_identity(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(Publish(TOPIC, b"", 1, 7))
        worker.answer(lambda _: None)
        worker.confirm()
        assert device.only(Puback).reason_code == 0x87

    @pytest.mark.parametrize("qos", [1, 2])
    def test_nobody_there_is_told_before_the_block_is_confirmed(self, worker: WorkerDouble, qos: int) -> None:
        device, _ = connect(worker)
        device.send(Publish(TOPIC, b"a", qos, 7))
        worker.identify()
        ((subject, _),) = worker.published()
        worker.no_responders(subject)
        worker.confirm()
        answer: Puback | Pubrec = device.only(ACKS[qos])
        assert (answer.packet_id, answer.reason_code) == (7, 0x80)
        # The identifier is free at once.
        device.send(Publish(TOPIC, b"b", qos, 7))
        assert len(worker.published()) == 1
        worker.confirm()
        assert device.received() == [Puback(7) if qos == 1 else Pubrec(7)]

    def test_only_the_refused_one_of_a_block(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(Publish(TOPIC, b"a", 1, 7))
        worker.identify()
        worker.confirm()
        assert device.only(Puback) == Puback(7)
        device.send(Publish(TOPIC, b"a", 1, 1), Publish(UNKNOWN, b"", 1, 2), Publish(TOPIC, b"c", 1, 3))
        worker.confirm()
        codes = [(each.packet_id, each.reason_code) for each in device.received() if isinstance(each, Puback)]
        assert codes == [(1, 0), (2, 0x90), (3, 0)]

    def test_a_topic_outside_kp1_matches_nobody(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(Publish("outside", b"", 1, 7))
        worker.confirm()
        assert device.only(Puback) == Puback(7, 0x10)


class TestResponseTopic:
    PROPERTIES = ((Property.RESPONSE_TOPIC, "my/answers"), (Property.CORRELATION_DATA, b"\x00\xff"))

    @pytest.mark.parametrize("topic", [TOPIC, f"{TOPIC}/5"])
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_an_answer_goes_there_and_only_there(self, worker: WorkerDouble, qos: int, topic: str) -> None:
        """[MQTT-3.3.2-15], [MQTT-3.3.2-16]: and carries the Correlation Data."""
        device, _ = connect(worker)
        device.send(Publish(topic, b"q", qos, 9 if qos else 0, properties=self.PROPERTIES))
        worker.identify()
        ((_, data),) = worker.published()
        assert data.request_id is not None
        worker.answer_to(data, b"done")
        answer = device.only(Publish)
        assert (answer.topic, answer.payload, answer.qos) == ("my/answers", b"done", qos)
        assert answer.get(Property.CORRELATION_DATA) == b"\x00\xff"
        assert answer.all(Property.USER_PROPERTY) == [("statusCode", "200"), ("reasonPhrase", "OK")]
        worker.answer_to(data, b"again")
        assert device.received() == []
        assert worker.reason("dropped", "late_answer") == 1

    def test_a_refusal_goes_there(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(Publish(UNKNOWN, b"", 0, properties=self.PROPERTIES))
        answer = device.only(Publish)
        assert answer.topic == "my/answers"
        assert b'"statusCode":404' in answer.payload
        assert answer.all(Property.USER_PROPERTY)[0] == ("statusCode", "404")

    def test_a_refusal_of_qos_1_is_told_twice(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(Publish(UNKNOWN, b"", 1, 7, properties=self.PROPERTIES))
        worker.confirm()
        kinds = {type(each): each for each in device.received()}
        assert kinds[Puback].reason_code == 0x90  # type: ignore[attr-defined]
        assert kinds[Publish].topic == "my/answers"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("topic", ["a/#", "+", ""])
    def test_it_has_no_wildcards(self, worker: WorkerDouble, topic: str) -> None:
        """[MQTT-3.3.2-14]."""
        device, _ = connect(worker)
        device.send(Publish(TOPIC, b"", properties=((Property.RESPONSE_TOPIC, topic),)))
        assert device.only(Disconnect).reason_code == 0x82
        assert device.closed

    def test_what_is_not_answered_is_bounded(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(*(Publish(TOPIC, b"", properties=self.PROPERTIES) for _ in range(101)))
        worker.identify()
        requests = worker.published()
        assert worker.reason("dropped", "response_topic") == 1
        worker.answer_to(requests[0].data)
        assert device.received() == []
        worker.answer_to(requests[1].data)
        assert device.only(Publish).topic == "my/answers"


class TestExpiry:
    def test_it_is_the_timeout_of_client_data(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(
            Publish(TOPIC, b"", properties=((Property.MESSAGE_EXPIRY_INTERVAL, 30),)), Publish(TOPIC, b"")
        )
        worker.identify()
        assert [data.timeout for _, data in worker.published()] == [30_000, 0]

    def test_what_is_left_comes_down(self, worker: WorkerDouble) -> None:
        device = identified(worker)
        push(worker, timestamp=NOW_MS, timeout=30_000)
        left = device.only(Publish).get(Property.MESSAGE_EXPIRY_INTERVAL)
        assert left > 30
        push(worker)
        assert device.only(Publish).get(Property.MESSAGE_EXPIRY_INTERVAL) is None


class TestTopicAlias:
    @staticmethod
    def alias(number: int, topic: str = "", **fields: Any) -> Publish:
        return Publish(topic, b"", properties=((Property.TOPIC_ALIAS, number),), **fields)

    def test_it_stands_for_its_topic(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(self.alias(1, f"{TOPIC}/5"), self.alias(2, f"kp1/{APP}/dcx/t/other"))
        worker.identify()
        device.send(*(self.alias(1 + n % 2) for n in range(4)))
        paths = [(data.resource_path, data.request_id) for _, data in worker.published()]
        assert paths == 3 * [("/json", 5), ("/other", None)]

    def test_it_may_get_another_topic(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(self.alias(8, TOPIC), self.alias(8, f"kp1/{APP}/dcx/t/other"), self.alias(8))
        worker.identify()
        assert [data.resource_path for _, data in worker.published()] == ["/json", "/other", "/other"]

    @pytest.mark.parametrize("number", [0, 9, 65535])
    def test_0_and_too_large_are_refused(self, worker: WorkerDouble, number: int) -> None:
        """[MQTT-3.3.2-7] to [MQTT-3.3.2-9]."""
        device, _ = connect(worker)
        device.send(self.alias(number, TOPIC))
        assert device.only(Disconnect).reason_code == 0x94

    def test_it_ends_with_its_connection(self, worker: WorkerDouble) -> None:
        """[MQTT-3.3.2-7]."""
        device, _ = connect(worker, lasting())
        device.send(self.alias(1, TOPIC))
        device.drop()
        device, connack = connect(worker, lasting())
        assert connack.session_present
        device.send(self.alias(1))
        assert device.only(Disconnect).reason_code == 0x82

    def test_a_route_that_is_withdrawn_is_looked_up_again(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(self.alias(1, TOPIC))
        worker.identify()
        device.send(self.alias(1))
        assert len(worker.published()) == 2
        worker.in_slices(worker.revocation.revoke_tokens("endpoint-t", [APP.encode()], []))
        device.send(self.alias(1))
        assert worker.published() == []
        worker.identify("other-{}".format)
        ((_, data),) = worker.published()
        assert data.endpoint_id == "other-t"

    def test_down_a_push_comes_under_its_alias(self, worker: WorkerDouble) -> None:
        """[MQTT-3.1.2-26]: as many as the client takes, and no more."""
        device = identified(worker, Connect("id", properties=((Property.TOPIC_ALIAS_MAXIMUM, 2),)))
        seen: list[tuple[str, int | None]] = []
        for path in ("/a", "/a", "/b", "/a", "/c", "/c"):
            push(worker, path=path)
            message = device.only(Publish)
            seen.append((message.topic.removeprefix(f"kp1/{APP}/dcx/t"), message.get(Property.TOPIC_ALIAS)))
        assert seen == [("/a/status", 1), ("", 1), ("/b/status", 2), ("", 1), ("/c/status", 1), ("", 1)]

    def test_down_none_without_leave(self, worker: WorkerDouble) -> None:
        device = identified(worker)
        push(worker)
        push(worker)
        assert [each.properties for each in device.received()] == [(), ()]


class TestSubscriptions:
    def test_identifiers_of_all_filters_that_match_come_back(self, worker: WorkerDouble) -> None:
        """[MQTT-3.3.4-3] to [MQTT-3.3.4-5]; a filter that is subscribed again has the new one (3.8.4-3)."""
        device, _ = connect(worker)
        for packet_id, (topic_filter, identifier) in enumerate(
            ((f"{TOPIC}/#", 1), ("kp1/#", 268_435_455), ("elsewhere", 3), (f"{TOPIC}/#", 4)), start=1
        ):
            device.send(
                Subscribe(
                    packet_id,
                    ((topic_filter, 1),),
                    properties=((Property.SUBSCRIPTION_IDENTIFIER, identifier),),
                )
            )
        worker.identify()
        device.received()
        push(worker)
        message = device.only(Publish)
        assert message.qos == 1
        assert sorted(message.all(Property.SUBSCRIPTION_IDENTIFIER)) == [4, 268_435_455]

    def test_codes(self, worker: WorkerDouble) -> None:
        device, _ = connect(worker)
        device.send(Subscribe(1, (("a", 0x2D), ("$share/g/a", 1), ("b" * 2000, 0))))
        assert device.only(Suback) == Suback(1, (1, 0x9E, 0x97))
        device.send(Unsubscribe(2, ("a", "a", "$share/g/a")))
        assert device.only(Unsuback) == Unsuback(2, (0, 0x11, 0x11))


class TestSize:
    CONNECT = Connect("id", properties=((Property.MAXIMUM_PACKET_SIZE, 100),))

    @pytest.mark.parametrize("qos", [0, 1])
    def test_a_message_that_is_too_large_holds_up_nothing(self, worker: WorkerDouble, qos: int) -> None:
        """[MQTT-3.1.2-24], [MQTT-3.1.2-25]."""
        device = identified(worker, self.CONNECT, (f"{TOPIC}/#", qos))
        for payload in (b"a", b"x" * 100, b"b"):
            push(worker, payload)
        assert [each.payload for each in device.received() if isinstance(each, Publish)] == [b"a", b"b"]
        assert worker.reason("dropped", "mqtt_packet_size_of_client") == 1

    def test_a_reason_string_gives_way(self, worker: WorkerDouble) -> None:
        """[MQTT-3.4.2-2]."""
        device, _ = connect(worker, self.CONNECT)
        device.send(Publish(f"kp1/{APP}/dcx", b"", 1, 7))
        worker.confirm()
        assert device.only(Puback).reason_code == 0x90


class TestFlowControl:
    def test_messages_beyond_the_receive_maximum_end_the_connection(self, worker: WorkerDouble) -> None:
        """[MQTT-3.3.4-9]: and not those that were acknowledged."""
        device, connack = connect(worker)
        assert connack.get(Property.RECEIVE_MAXIMUM) == 10
        for packet_id in range(1, 31):
            device.send(Publish(TOPIC, b"", 1, packet_id))
            worker.identify()
            worker.confirm()
        assert len(device.received()) == 30
        device.send(*(Publish(TOPIC, b"", 2, packet_id) for packet_id in range(1, 11)))
        worker.confirm()
        device.send(Pubrel(1))
        device.send(Publish(TOPIC, b"", 1, 11))
        worker.confirm()
        assert not any(isinstance(each, Disconnect) for each in device.received())
        device.send(Publish(TOPIC, b"", 2, 12), Publish(TOPIC, b"", 2, 13))
        assert device.only(Disconnect).reason_code == 0x93

    def test_no_more_than_the_client_takes_are_in_flight(self, worker: WorkerDouble) -> None:
        """[MQTT-3.3.4-7]."""
        device = identified(
            worker, Connect("id", properties=((Property.RECEIVE_MAXIMUM, 2),)), (f"{TOPIC}/#", 1)
        )
        for number in range(4):
            push(worker, b"%d" % number)
        first: list[Any] = device.received()
        assert [each.payload for each in first] == [b"0", b"1"]
        device.send(Puback(first[0].packet_id, 0x80))
        assert device.only(Publish).payload == b"2"

    def test_a_pubrec_that_refuses_ends_the_handshake(self, worker: WorkerDouble) -> None:
        device = identified(
            worker, Connect("id", properties=((Property.RECEIVE_MAXIMUM, 1),)), (f"{TOPIC}/#", 2)
        )
        push(worker, b"0")
        push(worker, b"1")
        device.send(Pubrec(device.only(Publish).packet_id, 0x97))
        second = device.only(Publish)
        assert second.payload == b"1"
        device.send(Pubrec(second.packet_id))
        assert device.only(Pubrel).reason_code == 0


class TestVersions:
    """A persistent session whose client comes back with another protocol version."""

    def test_what_is_in_flight_and_queued_survives(self, worker: WorkerDouble) -> None:
        device = identified(worker, lasting(), (f"{TOPIC}/#", 1))
        push(worker, b"in flight", timestamp=NOW_MS, timeout=60_000)
        packet_id = device.only(Publish).packet_id
        device.drop()
        push(worker, b"queued")
        old = worker.unconnected()
        old.send(mqtt.Connect("id", False))
        worker.admit()
        assert [(p.payload, p.dup) for p in old.received() if isinstance(p, mqtt.Publish)] == [
            (b"in flight", True),
            (b"queued", False),
        ]
        old.drop()
        device, connack = connect(worker, lasting())
        assert connack.session_present
        again: list[Packet] = device.behind_connack + device.received()
        publishes = [each for each in again if isinstance(each, Publish)]
        assert [(each.payload, each.dup) for each in publishes] == [(b"in flight", True), (b"queued", True)]
        assert publishes[0].packet_id == packet_id
        assert publishes[0].get(Property.MESSAGE_EXPIRY_INTERVAL) > 60
        device.send(*(Puback(each.packet_id) for each in publishes))
        push(worker, b"more")
        assert device.only(Publish).payload == b"more"

    def test_a_handshake_of_qos_2_goes_on(self, worker: WorkerDouble) -> None:
        old = worker.device("id", clean=False)
        old.publish(TOPIC, b"x", 2, 5)
        worker.identify()
        worker.confirm()
        old.received()
        old.drop()
        device, _ = connect(worker, lasting())
        device.send(Publish(TOPIC, b"x", 2, 5, dup=True))
        assert device.only(Pubrec) == Pubrec(5)
        device.send(Pubrel(5))
        assert device.only(Pubcomp) == Pubcomp(5)
        assert len(worker.published()) == 1
