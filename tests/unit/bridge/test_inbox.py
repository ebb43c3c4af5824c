"""What waits between the broker and NATS: messages of QoS 0 have a bound of their own."""

from types import SimpleNamespace
from typing import Any

import pytest
from kaa_gateway.bridge import broker
from kaa_gateway.bridge.broker import Inbox


def message(payload: bytes, qos: int = 0) -> Any:
    return SimpleNamespace(payload=payload, qos=qos)


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Inbox:
    monkeypatch.setattr(broker, "QOS_0_MAX", 3)
    monkeypatch.setattr(broker, "QOS_0_BYTES_MAX", 100)
    found = Inbox()
    found.dropped = lambda: dropped.append(True)
    dropped.clear()
    return found


dropped: list[bool] = []


async def test_bytes(inbox: Inbox) -> None:
    inbox.put_nowait(message(b"x" * 60))
    inbox.put_nowait(message(b"x" * 60))
    assert (inbox.qsize(), len(dropped)) == (1, 1)
    assert (await inbox.get()).payload == b"x" * 60
    inbox.put_nowait(message(b"x" * 60))
    assert (inbox.qsize(), len(dropped)) == (1, 1)


async def test_messages(inbox: Inbox) -> None:
    for _ in range(5):
        inbox.put_nowait(message(b""))
    assert (inbox.qsize(), len(dropped)) == (3, 2)


async def test_qos_1_is_never_dropped_here(inbox: Inbox) -> None:
    for _ in range(5):
        inbox.put_nowait(message(b"x" * 60, qos=1))
    assert (inbox.qsize(), len(dropped)) == (5, 0)
