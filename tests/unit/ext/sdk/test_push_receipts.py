"""Receipts as the SDK gathers them: which reports make an outcome, and how many are awaited."""

import asyncio

import pytest
from kaa_ext import Extension, NotDelivered
from kaa_ext.sdk import push_receipt, receipts
from kaa_ext.sdk.push_outcome import PushOutcome
from kaa_ext.sdk.push_receipt import PushReceipt
from kaa_ext.sdk.receipts import Receipts
from kaa_ext.testing import offline
from kaa_gateway.bus.push_receipts import PUSH_RECEIPT, receipt_subject

LONG_S = 60.0
Report = tuple[str, str | None, str, str | None]
"""Replica, session, outcome, reason."""


async def outcome_of(*reports: Report, one_worker: bool = False) -> PushOutcome:
    receipt = PushReceipt("push", one_worker=one_worker)
    for replica, session, outcome, reason in reports:
        receipt.receive(replica, session, PushOutcome(outcome, reason))  # type: ignore[arg-type]
    return await receipt.outcome(LONG_S)


NOBODY: Report = ("b", None, "no-session", "no_session")


@pytest.mark.parametrize(
    ("reports", "status"),
    [
        ([("a", "1", "sent", None)], "sent"),
        ([NOBODY, ("a", "1", "accepted", None), ("a", "1", "delivered", None)], "delivered"),
        ([("a", "1", "accepted", None), NOBODY, ("a", "1", "dropped", "expired")], "dropped"),
        ([("a", "1", "dropped", "expired"), ("a", "2", "sent", None)], "sent"),
        ([NOBODY, ("a", "1", "repeated", None)], "repeated"),
        ([("a", "1", "repeated", None), ("a", "2", "dropped", "expired")], "repeated"),
        ([NOBODY, NOBODY], "no-session"),
    ],
)
async def test_what_the_reports_of_all_workers_come_to(reports: list[Report], status: str) -> None:
    assert (await outcome_of(*reports)).status == status


async def test_a_session_that_still_has_the_push_is_waited_for() -> None:
    receipt = PushReceipt("push", one_worker=False)
    receipt.receive("a", "1", PushOutcome("accepted"))
    receipt.receive("b", None, PushOutcome("no-session"))
    assert await receipt.outcome(push_receipt.OTHERS_S * 1.5) == PushOutcome("accepted")
    assert not receipt.is_over
    receipt.receive("a", "1", PushOutcome("delivered"))
    assert await receipt.outcome(LONG_S) == PushOutcome("delivered")


async def test_silence_is_unknown() -> None:
    assert await PushReceipt("push", one_worker=False).outcome(0.01) == PushOutcome("unknown")


async def test_a_push_to_one_replica_waits_for_no_other() -> None:
    receipt = PushReceipt("push", one_worker=True)
    receipt.receive(*NOBODY[:2], PushOutcome("no-session"))
    assert receipt.is_over


async def test_too_many_receipts_give_the_oldest_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "WAITING_MAX", 3)
    waiting = Receipts("replica")
    expected = [waiting.expect("same", one_worker=False) for _ in range(5)]
    assert [each.is_over for each in expected] == [True, True, False, False, False]
    assert len(waiting) == 3
    assert await expected[0].outcome(LONG_S) == PushOutcome("unknown")


async def test_receipts_find_their_pushes_and_are_forgotten() -> None:
    extension = Extension("thermostat")
    async with offline(extension) as gateway:
        pushed = await extension.push("ep", "/x", b"", receipt=True, push_id="mine")
        again = await extension.push("ep", "/x", b"", receipt=True, push_id="mine")
        for push_id in ("not mine", "mine"):
            datum = PUSH_RECEIPT.encode(
                correlation_id=push_id,
                endpointId="ep",
                gatewayReplicaId="g",
                session="1",
                outcome="delivered",
            )
            await gateway.publish(receipt_subject(extension.replica_id), datum)
        assert (await pushed.outcome(LONG_S)).is_delivered
        assert (await again.outcome(LONG_S)).is_delivered
        await asyncio.sleep(0)
        assert len(extension._pushes.receipts) == 0


async def test_a_push_that_nats_does_not_take_is_not_awaited() -> None:
    extension = Extension("thermostat")
    with pytest.raises(NotDelivered):
        await extension.push("ep", "/x", b"", receipt=True)
    await asyncio.sleep(0)
    assert len(extension._pushes.receipts) == 0
