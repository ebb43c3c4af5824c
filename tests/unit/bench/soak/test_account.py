"""The sums over histories."""

from kaa_bench.soak.account import Account, account
from kaa_bench.soak.checker import Disturbance, Disturbances, Promises
from kaa_bench.soak.history import History


def history_of(count: int) -> History:
    history = History("device")
    history.connect()
    for _ in range(count):
        history.send(at=100.0)
    return history


def test_each_message_is_counted_for_what_became_of_it() -> None:
    history = history_of(6)
    for number in (1, 2, 3, 4):
        history.acknowledge(number, at=101.0)
    history.refuse(4)
    for number in (1, 1, 5):
        history.deliver(number)
    history.answer(1)
    assert history.missing() == [2, 3]
    assert account(history, Promises(), Disturbances()) == Account(
        sent=6, acknowledged=3, refused=1, delivered=2, duplicated=1, answered=1, lost=2, lost_with_nats=0
    )
    killed = Disturbances([Disturbance("nats_killed", 102.0, 103.0)])
    assert account(history, Promises(), killed).lost_with_nats == 2
    assert account(history, Promises(durable=True), killed).lost == 2


def test_messages_by_their_number() -> None:
    history = history_of(7)
    history.deliver(3)
    sums = [account(history, Promises(), Disturbances(), place, 3) for place in range(3)]
    assert [(each.sent, each.delivered) for each in sums] == [(2, 1), (3, 0), (2, 0)]


def test_sums_of_several_devices() -> None:
    total = Account()
    for _ in range(2):
        history = history_of(1)
        history.acknowledge(1)
        total.add(account(history, Promises(), Disturbances()))
    assert (total.sent, total.acknowledged, total.lost) == (2, 2, 2)


def test_a_message_that_is_written_off_is_waited_for_no_more_and_still_lost() -> None:
    history = history_of(1)
    history.acknowledge(1)
    history.write_off()
    assert history.missing() == []
    assert account(history, Promises(), Disturbances()).lost == 1
