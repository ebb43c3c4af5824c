from kaa_bench.soak.ledger import Account, Ledger


def test_each_message_is_counted_for_what_became_of_it() -> None:
    ledger = Ledger()
    for _ in range(6):
        ledger.send()
    for number in (1, 2, 3, 4):
        ledger.acknowledge(number)
    ledger.refuse(4)  # an error says that it went nowhere, whatever was acknowledged
    for number in (1, 1, 5):
        ledger.deliver(number)
    ledger.answer(1)
    assert ledger.missing() == [2, 3]
    assert ledger.account() == Account(
        sent=6, acknowledged=3, refused=1, delivered=2, duplicated=1, answered=1, lost=2, lost_with_nats=0
    )


def test_losses_belong_to_the_span_in_which_the_message_was_sent() -> None:
    ledger = Ledger()
    for number in (1, 2, 3):
        assert ledger.send() == number
        ledger.acknowledge(number)
        ledger.close(nats_died=number > 1)
    assert (ledger.account().lost, ledger.account().lost_with_nats) == (1, 2)
    ledger.deliver(3)  # late, but there
    assert (ledger.account().lost, ledger.account().lost_with_nats) == (1, 1)


def test_sums_of_several_devices() -> None:
    total = Account()
    for _ in range(2):
        ledger = Ledger()
        ledger.acknowledge(ledger.send())
        total.add(ledger.account())
    assert (total.sent, total.acknowledged, total.lost) == (2, 2, 2)


def test_what_is_acknowledged_late_belongs_to_the_span_of_its_acknowledgement() -> None:
    """A datagram was lost, and its repetition taken when the NATS server was about to be killed."""
    ledger = Ledger()
    for _ in range(3):
        ledger.send()
    ledger.close(nats_died=False)
    ledger.acknowledge(3)
    assert ledger.missing() == [3]
    ledger.close(nats_died=True)
    assert ledger.missing() == []
    assert (ledger.account().lost, ledger.account().lost_with_nats) == (0, 1)
