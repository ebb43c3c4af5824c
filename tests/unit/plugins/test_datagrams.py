"""A plug-in's peers over UDP."""

from collections.abc import Iterator

import pytest

from tests.support.line_protocol import Datagrams
from tests.support.plugin_worker import DatagramDevice, PluginWorker

FLOOD = 3000
"""More than the stale timers that are kept."""


@pytest.fixture
def worker() -> Iterator[PluginWorker]:
    with PluginWorker(Datagrams) as worker:
        worker.open_socket()
        yield worker


def logged_in(worker: PluginWorker, token: str) -> DatagramDevice:
    device = DatagramDevice(worker)
    device.send(f"login {token}")
    worker.identify()
    assert device.lines() == [f"identified {token}"]
    return device


def test_a_datagram_is_a_message(worker: PluginWorker) -> None:
    device = logged_in(worker, "t1")
    device.send("confirm dcx/json 1")
    device.send("ask dcx/json 2")
    first, second = worker.published()
    assert (first.data.endpoint_id, first.data.resource_path) == ("endpoint-t1", "/json")
    worker.confirm()
    worker.answer_to(second.data, b"ok")
    worker.push("endpoint-t1", b"{}")
    assert device.lines() == ["confirmed 1", "answered 2 200 ok", "pushed cex /command/x t1 {}"]


def test_addresses_are_told_apart(worker: PluginWorker) -> None:
    first, second = logged_in(worker, "a"), logged_in(worker, "b")
    worker.push("endpoint-a", b"1")
    assert first.lines() == ["pushed cex /command/x a 1"]
    assert second.lines() == []
    assert worker.core.count() == 2


def test_a_fault_forgets_the_address_alone(worker: PluginWorker) -> None:
    first, second = logged_in(worker, "a"), logged_in(worker, "b")
    first.send("fault")
    assert worker.core.count() == 1
    assert worker.reason("closed", "plugin_fault") == 1
    assert worker.presence.endpoints == {"endpoint-b"}
    second.send("publish dcx/json 1")
    assert len(worker.published()) == 1
    first.send("login a")
    worker.identify()
    assert first.lines() == ["identified a"]


def test_a_stranger_is_sent_three_times_what_it_has_sent_at_most(worker: PluginWorker) -> None:
    device = DatagramDevice(worker)
    device.send("send " + "x" * 40)
    device.send("send " + "x" * 40)
    assert device.lines() == ["x" * 40] * 2
    with PluginWorker(Datagrams, options={"greeting": "x" * 500}) as generous:
        generous.open_socket()
        small = DatagramDevice(generous)
        small.send("send hello")
        assert small.lines() == ["hello"]
        assert generous.reason("dropped", "plugin_amplification") == 1


def test_peers_give_way_strangers_first() -> None:
    with PluginWorker(Datagrams, peers=16) as worker:
        worker.open_socket()
        known = logged_in(worker, "t1")
        devices = [DatagramDevice(worker) for _ in range(20)]
        for device in devices:
            device.send("send hello")
        assert worker.core.count() == 3
        assert worker.reason("closed", "plugin_too_many_peers") == 18
        known.send("publish dcx/json 1")
        assert len(worker.published()) == 1
        for number in range(20):
            logged_in(worker, f"n{number}")
        assert worker.core.count() <= 16
        assert worker.sessions.count <= 16


def test_silent_peers_and_strangers_are_forgotten(worker: PluginWorker) -> None:
    logged_in(worker, "t1")
    DatagramDevice(worker).send("send hello")
    worker.loop.now += 31
    assert not worker.socket.check()  # type: ignore[union-attr]
    assert worker.core.count() == 1
    worker.loop.now += 600
    assert not worker.socket.check()  # type: ignore[union-attr]
    assert worker.core.count() == 0
    assert worker.reason("closed", "plugin_idle") == 2
    assert worker.sessions.count == 0


def test_timers(worker: PluginWorker) -> None:
    device, other = logged_in(worker, "t1"), logged_in(worker, "t2")
    device.send("timer 10")
    other.send("timer 20")
    device.send("timer 30")
    for seconds, expected in ((11, ([], [])), (10, ([], ["timer"])), (10, (["timer"], []))):
        worker.loop.now += seconds
        assert not worker.socket.check()  # type: ignore[union-attr]
        assert (device.lines(), other.lines()) == expected


def test_timers_of_addresses_that_are_gone_are_forgotten() -> None:
    """Each address of a flood, which may be forged, sets a timer and gives way to the next."""
    with PluginWorker(Datagrams, peers=16, options={"timer": 3600.0}) as worker:
        worker.open_socket()
        known = logged_in(worker, "t1")
        for _ in range(FLOOD):
            device = DatagramDevice(worker)
            device.send("send hello")
            device.close()
        assert worker.core.count() == 3
        assert worker.core.timer_count() <= FLOOD // 2
        worker.loop.now += 20
        known.send("timer 3600")
        for _ in range(180):
            worker.loop.now += 20
            known.send("send still here")
        worker.socket.check()  # type: ignore[union-attr]
        assert known.lines()[-1] == "timer"


def test_a_timer_that_is_always_set_earlier_has_few_entries(worker: PluginWorker) -> None:
    device = logged_in(worker, "t1")
    for number in range(FLOOD):
        device.send(f"timer {FLOOD - number}")
    assert worker.core.timer_count() <= FLOOD // 2
    worker.loop.now += 2
    worker.socket.check()  # type: ignore[union-attr]
    assert device.lines() == ["timer"]


def test_sizes(worker: PluginWorker) -> None:
    device = DatagramDevice(worker)
    device.send("send " + "x" * 2000)
    assert worker.reason("dropped", "plugin_datagram_too_large") == 1
    assert worker.core.count() == 0


def test_a_busy_uplink_drops_datagrams() -> None:
    with PluginWorker(Datagrams, pending_max=1000) as worker:
        worker.open_socket()
        device = logged_in(worker, "t1")
        for number in range(50):
            device.send(f"confirm dcx/json {number}")
        dropped = worker.reason("dropped", "plugin_busy")
        assert dropped > 0
        while worker.link.backlog:
            worker.confirm()
            worker.loop.run()
        assert len(device.lines()) == 50 - dropped
        device.send("confirm dcx/json last")
        worker.confirm()
        assert device.lines() == ["confirmed last"]


def test_a_drain_takes_no_new_peers(worker: PluginWorker) -> None:
    device = logged_in(worker, "t1")
    worker.core.begin_drain()
    DatagramDevice(worker).send("send hello")
    assert worker.reason("dropped", "plugin_draining") == 1
    device.send("publish dcx/json 1")
    assert len(worker.published()) == 1
    worker.core.stop()
    assert device.lines() == ["stopping"]
    assert worker.sessions.count == 0
