"""Histories that keep each property, that break it, and that a disturbance excuses."""

from collections.abc import Sequence

import pytest
from kaa_bench.soak.checker import PROPERTIES, Disturbance, Promises, check
from kaa_bench.soak.history import History

CORE = Promises()
DURABLE = Promises(durable=True)
QOS2 = Promises(once=True)
REQUESTS = Promises(deadline_s=8.0)


def sent(count: int, token: str = "device") -> History:
    """A device that has sent a message each second on its first connection."""
    history = History(token)
    history.connect()
    for number in range(count):
        history.send(at=100.0 + number)
    return history


def broken(history: History, promises: Promises, *disturbances: Disturbance) -> list[str]:
    """The properties that a history breaks, one entry for each violation."""
    findings = check(history, promises, disturbances)
    return [name for name, finding in findings.items() for _ in finding.violations]


def at(name: str, began: float, ended: float | None = None) -> Sequence[Disturbance]:
    return [Disturbance(name, began, began if ended is None else ended)]


def test_a_history_of_delivered_messages_breaks_nothing() -> None:
    history = sent(3)
    for number in (1, 2, 3):
        history.acknowledge(number, at=101.0 + number)
        history.deliver(number, at=102.0 + number)
        history.answer(number, "device", number, at=103.0 + number)
    history.revoke(at=110.0)
    history.push(109.0, at=109.1)
    promises = Promises(once=True, deadline_s=8.0)
    findings = check(history, promises)
    assert [finding.violations for finding in findings.values()] == [[]] * len(PROPERTIES)
    assert {name: finding.checked for name, finding in findings.items()} == {
        "no loss": 3, "order": 2, "once": 3, "own answers": 3, "no push after revocation": 1, "deadline": 3,
    }  # fmt: skip


def test_a_message_that_was_acknowledged_and_is_not_delivered_is_lost() -> None:
    history = sent(3)
    history.acknowledge(1, at=101.0)
    history.acknowledge(2, at=102.0)
    history.refuse(2, at=102.5)  # an error says that it went nowhere, whatever was acknowledged
    assert history.missing() == [1]
    assert broken(history, CORE) == broken(history, DURABLE) == ["no loss"]
    history.deliver(1, at=140.0)  # late, but there
    assert broken(history, CORE) == []
    assert history.missing() == []


@pytest.mark.parametrize(("killed", "excused"), [(90.0, False), (100.5, True), (109.0, True), (112.0, False)])
def test_the_death_of_nats_excuses_what_it_held_in_memory_and_nothing_else(
    killed: float, excused: bool
) -> None:
    history = sent(1)
    history.acknowledge(1, at=101.0)
    assert (broken(history, CORE, *at("nats_killed", killed)) == []) == excused
    assert broken(history, CORE, *at("worker_killed", killed)) == ["no loss"]
    assert broken(history, DURABLE, *at("nats_killed", killed)) == ["no loss"]


def test_a_message_that_overtakes_another_of_its_connection_breaks_the_order() -> None:
    history = sent(3)
    for number, delivered in ((1, 103.0), (3, 104.0), (2, 105.0)):
        history.deliver(number, at=delivered)
    assert broken(history, CORE) == ["order"]
    assert broken(history, CORE, *at("nats_network_reset", 102.0)) == []
    assert broken(history, CORE, *at("nats_network_reset", 80.0)) == ["order"]
    assert broken(history, CORE, *at("device_network_reset", 102.0)) == ["order"]


def test_order_is_that_of_a_connection_and_of_a_replica() -> None:
    history = sent(4)
    history.deliver(2, replica=1, at=104.0)
    history.deliver(1, replica=2, at=105.0)  # another replica may be slower
    history.connect()
    history.deliver(4, connection=2, at=106.0)
    history.deliver(3, connection=1, at=107.0)  # sent on the connection before
    assert broken(history, CORE) == []


def test_a_repetition_does_not_break_the_order() -> None:
    history = sent(2)
    for number, delivered in ((1, 102.0), (2, 103.0), (1, 104.0)):
        history.deliver(number, at=delivered)
    assert broken(history, CORE) == []


def test_a_message_at_qos_2_is_delivered_once_for_a_connection() -> None:
    history = sent(1)
    history.deliver(1, at=101.0)
    history.connect()
    history.deliver(1, connection=2, at=102.0)  # sent again on another connection: a new message
    assert broken(history, QOS2) == []
    history.deliver(1, connection=2, at=102.5)
    assert broken(history, QOS2) == ["once"]
    assert broken(history, CORE) == []  # QoS 1 may arrive twice
    assert broken(history, QOS2, *at("nats_stopped", 99.0, 102.0)) == []


def test_a_stream_may_deliver_again_what_its_extension_has_not_acknowledged() -> None:
    history = sent(1)
    history.deliver(1, at=101.0)
    history.deliver(1, at=106.5)
    assert broken(history, Promises(durable=True, once=True)) == []
    history.deliver(1, at=101.5)
    assert broken(history, Promises(durable=True, once=True)) == ["once"]


def test_an_answer_of_another_device_or_message_is_found() -> None:
    history = sent(2)
    history.answer(1, "other", 1, at=101.0)
    history.answer(2, "device", 1, at=102.0)
    history.answer(3, "device", 3, at=103.0)  # never sent
    assert broken(history, CORE) == ["own answers"] * 3


def test_a_push_that_was_sent_after_the_revocation_of_its_connection_is_found() -> None:
    history = sent(0)
    history.revoke(at=100.0)
    history.push(101.0, at=101.1)  # the gateway may not have heard of it
    assert broken(history, CORE) == []
    history.push(103.0, at=103.1)
    assert broken(history, CORE) == ["no push after revocation"]
    assert broken(history, CORE, *at("nats_stopped", 99.0, 102.0)) == []  # it has not heard of it
    history.revocations.clear()
    history.revoke(at=104.0)
    history.connect()
    history.push(110.0, at=110.1)  # registered again
    assert broken(history, CORE) == []


def test_a_request_that_is_answered_late_or_never_is_found() -> None:
    history = sent(4)
    history.refuse(1, at=108.0)
    history.answer(2, at=120.0)
    history.give_up(3, at=115.0)
    assert broken(history, REQUESTS) == ["deadline"] * 2  # the connection of the fourth has ended
    assert broken(history, CORE) == []
    assert broken(history, REQUESTS, *at("worker_killed", 105.0)) == []
    assert broken(history, REQUESTS, *at("extension_killed", 105.0)) == ["deadline"] * 2


def test_a_violation_says_what_it_is_about() -> None:
    history = sent(1)
    history.acknowledge(1, at=101.0)
    [violation] = check(history, CORE)["no loss"].violations
    assert str(violation) == "no loss: message 1 of device was acknowledged and not delivered"
