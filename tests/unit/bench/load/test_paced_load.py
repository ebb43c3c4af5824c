"""Paced runs: when messages are sent, and from when latency counts."""

import socket
import time

import pytest
from kaa_bench import packets
from kaa_bench.load import loop
from kaa_bench.load.datagram import KpUdpLoad
from kaa_bench.load.mqtt import MqttLoad
from kaa_gateway.wire.kpudp import Message, Type, decode, encode

from tests.unit.bench.load.datagram_peer import connected_to
from tests.unit.bench.load.peer import STALL_TIMEOUT_S, peers, read_exactly

QOS1 = packets.publish(1, 1)
OFFSET = packets.identifier_offset(QOS1)
STALL_S = 0.4
RATE = 100


def load(sockets: list[socket.socket], window: int = 64) -> MqttLoad:
    return MqttLoad(sockets, [QOS1] * len(sockets), window, identifier_offset=OFFSET)


def acknowledge(connected: socket.socket, stall: float = 0) -> int:
    count = 0
    while (message := read_exactly(connected, len(QOS1))) is not None:
        if not count:
            time.sleep(stall)
        count += 1
        connected.sendall(b"\x40\x02" + message[OFFSET : OFFSET + 2])
    return count


def test_every_planned_message_is_sent_and_timed_by_all_connections_in_turn() -> None:
    with peers(acknowledge, count=3) as (sockets, served):
        paced = load(sockets)
        result = paced.run(messages=100, rate=1000, stall_timeout=STALL_TIMEOUT_S)
        paced.close()
        counts = [future.result() for future in served]
    assert (result.planned, result.sent, result.acknowledged, result.errors) == (100, 100, 100, {})
    assert counts == [34, 33, 33]
    assert result.latency is not None
    assert result.latency.total == 100
    assert result.seconds >= 99 / 1000


def test_the_rate_makes_messages_of_seconds() -> None:
    with peers(acknowledge) as (sockets, _):
        result = load(sockets).run(seconds=0.1, rate=500, stall_timeout=STALL_TIMEOUT_S)
    assert result.planned == result.sent == 50


def test_a_stall_is_charged_to_every_message_that_it_held_up() -> None:
    """With the window full, messages meant for the time of the stall are sent after it, and are late all the same."""
    with peers(lambda connected: acknowledge(connected, STALL_S)) as (sockets, _):
        result = load(sockets, window=1).run(messages=60, rate=RATE, stall_timeout=STALL_TIMEOUT_S)
    assert result.sent == 60
    # Message k is meant for k / RATE and answered after STALL_S: a quarter of the stall is left for these at least.
    long = int(STALL_S * 3 / 4 * RATE)
    assert result.held >= long
    assert result.latency is not None
    assert result.latency.percentile(100 * (1 - (long - 1) / 60)) >= STALL_S / 4 * 1e9


def test_what_cannot_be_sent_in_overtime_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "OVERTIME_S", 0.0)
    with peers(lambda connected: acknowledge(connected, STALL_S)) as (sockets, _):
        result = load(sockets, window=1).run(messages=10, rate=RATE, stall_timeout=STALL_TIMEOUT_S)
    assert (result.planned, result.sent, result.acknowledged) == (10, 1, 1)


def test_datagrams_are_timed_in_whatever_order_they_are_answered() -> None:
    held: list[int] = []

    def answer(datagram: bytes) -> list[bytes]:
        held.append(decode(datagram)[1][0].message_id)
        if len(held) % 4:
            return []
        acks = [Message(Type.ACK, identifier) for identifier in reversed(held[-4:])]
        return [encode(packets.EPOCH, acks)]

    with connected_to(answer) as sockets:
        paced = KpUdpLoad(sockets, [packets.kpudp_data()], 64, silence=STALL_TIMEOUT_S)
        for _ in range(2):
            result = paced.run(messages=40, rate=2000, stall_timeout=STALL_TIMEOUT_S)
            assert (result.sent, result.acknowledged, result.errors) == (40, 40, {})
            assert result.latency is not None
            assert result.latency.total == 40
            assert result.latency.highest < STALL_TIMEOUT_S * 1e9


def test_a_run_that_is_not_paced_has_no_latency() -> None:
    with peers(acknowledge) as (sockets, _):
        result = load(sockets).run(messages=10, stall_timeout=STALL_TIMEOUT_S)
    assert (result.planned, result.late, result.held, result.latency) == (0, 0, 0, None)


def test_a_paced_run_needs_answers_and_a_rate() -> None:
    with peers(lambda _: None) as (sockets, _):
        flood = MqttLoad(sockets, [packets.publish(1, 0)], 4, fence=packets.PINGREQ)
        with pytest.raises(ValueError, match="paced"):
            flood.run(messages=1, rate=10, stall_timeout=1)
        with pytest.raises(ValueError, match="paced"):
            load(sockets).run(messages=1, rate=-1, stall_timeout=1)
