"""The TCP adapter: accepting, what the socket does not take, and the end of a connection. A test moves the loop."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from kaa_bench.mqtt_packets import Connect, Pingreq, Pingresp, Publish, encode
from kaa_gateway.counters import Counters
from kaa_gateway.identity.clients import Client
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.transport import ProtocolCore, ProtocolServer, Transport
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.support.nats import HOST
from tests.unit.kp.device_double import Peer
from tests.unit.kp.loop_double import Loop
from tests.unit.kp.worker_double import APP, WorkerDouble

PUSH = ExtensionData("", 0, 0, APP, "dcx", "endpoint-t", "/json", None, bytes(50_000), 200, None)


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as worker:
        yield worker


def push(worker: WorkerDouble, count: int) -> None:
    for _ in range(count):
        worker.deliver(encode_extension_data(*PUSH))


def test_what_the_socket_does_not_take_comes_later_and_in_order(worker: WorkerDouble) -> None:
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/t/json")
    worker.identify()
    for number in range(10):
        worker.deliver(encode_extension_data(*PUSH._replace(payload=bytes([number]) * 50_000)))
    # More than 64 KiB wait: a device that does not read is not read either.
    assert not device.reading
    device.send(Pingreq())
    packets = device.received()
    assert [packet.payload[:1] for packet in packets[:-1]] == [bytes([number]) for number in range(10)]
    assert packets[-1] == Pingresp()
    assert device.reading


def test_a_device_that_never_reads_is_closed_at_the_bound(worker: WorkerDouble) -> None:
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/t/json")
    worker.identify()
    push(worker, 40)
    assert worker.reason("closed", "slow_reader") == 1
    assert worker.listener is not None
    assert worker.listener.connection_count() == 0


def test_output_that_is_left_goes_before_the_end(worker: WorkerDouble) -> None:
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/t/json")
    worker.identify()
    push(worker, 10)
    assert worker.listener is not None
    stopping = worker.listener.stop(0.0)
    with pytest.raises(StopIteration):
        # There is no time, and so what is left is cut off ...
        stopping.send(None)
    assert worker.listener.connection_count() == 0

    worker.listen(worker.mqtt, "mqtt")
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/t/json")
    worker.identify()
    push(worker, 10)
    # ... while a violation waits until the device has read, and is read no more.
    worker.loop.run()
    device.send_bytes(b"\x00\x00" * 10)
    assert len(device.received()) == 10
    assert device.closed
    device.drop()
    assert worker.listener.connection_count() == 0


def test_a_device_that_takes_no_last_bytes_is_cut_off(worker: WorkerDouble) -> None:
    device = worker.device(keep_alive=1)
    device.publish(f"kp1/{APP}/dcx/t/json")
    worker.identify()
    worker.check()
    push(worker, 10)
    assert worker.listener is not None
    for _ in range(3):
        worker.loop.pass_time(1)
        worker.check()
    assert worker.reason("closed", "mqtt_keep_alive_timeout") == 1
    assert worker.listener.connection_count() == 1
    for _ in range(7):
        worker.loop.pass_time(1)
        worker.check()
    assert worker.listener.connection_count() == 0


def test_a_slow_reader_is_not_taken_for_silent_and_one_that_takes_nothing_is(worker: WorkerDouble) -> None:
    device = worker.device(keep_alive=4)
    device.publish(f"kp1/{APP}/dcx/t/json")
    worker.identify()
    worker.check()
    push(worker, 20)
    assert not device.reading
    for _ in range(20):
        worker.loop.pass_time(1)
        device.read_some(20_000)
        worker.check()
    assert not device.reading
    assert worker.reason("closed", "mqtt_keep_alive_timeout") == 0
    for _ in range(10):
        worker.loop.pass_time(1)
        worker.check()
    assert worker.reason("closed", "mqtt_keep_alive_timeout") == 1


def test_a_reset_while_it_is_not_read_is_seen_later_and_costs_nothing_until_then() -> None:
    with WorkerDouble(admission={"message_rate": 1}) as worker:
        device = worker.device()
        device.send_bytes(encode(Pingreq()) * 10)
        assert not device.reading
        device.drop()
        assert not worker.loop.read()  # else the loop would spin
        assert worker.listener is not None
        assert worker.listener.connection_count() == 1
        worker.loop.pass_time(15)
        assert worker.listener.connection_count() == 0


def test_many_connections_at_once(worker: WorkerDouble) -> None:
    listener = worker.listener
    assert listener is not None
    clients = [socket.create_connection((HOST, listener.port)) for _ in range(150)]
    passes = 0
    while listener.connection_count() < len(clients):
        worker.loop.read()
        passes += 1
    assert passes <= 20  # one connection a pass at first, then many
    for client in clients:
        client.close()
    while listener.connection_count():
        worker.loop.read()
    counts = worker.counters.by_protocol()
    assert counts["connections_opened"]["mqtt"] == counts["connections_closed"]["mqtt"] == len(clients)


def test_without_descriptors_connections_wait_in_the_kernel(worker: WorkerDouble) -> None:
    assert worker.listener is not None
    device = worker.device()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection((HOST, worker.listener.port)):
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            while not worker.reason("paused", "no_descriptors"):
                worker.loop.read()
            assert not worker.loop.read()  # it does not try again at once
            device.send(Pingreq())
            assert device.received() == [Pingresp()]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert worker.listener.connection_count() == 1
        worker.loop.pass_time(1)
        while worker.listener.connection_count() < 2:
            worker.loop.read()


class FaultyLoop(Loop):
    """A loop that is told of faults."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        self.faults.append(str(context["exception"]))


def test_a_fault_ends_its_connection_and_no_other() -> None:
    loop: Any = FaultyLoop()
    with WorkerDouble() as worker:
        servers = iter([worker.mqtt, None, worker.mqtt])

        class FaultyServer(ProtocolServer):
            def connect(self, transport: Transport) -> ProtocolCore:
                server = next(servers)
                if server is None:
                    raise RuntimeError("no core")
                return server.connect(transport)

        listener = TcpListener(
            loop, FaultyServer(), Counters(), protocol="mqtt", output_max=2**20, connections_max=1000
        )
        listener.start(HOST, 0, reuse_port=False)
        first, second, third = (Peer(listener, HOST) for _ in range(3))
        assert loop.faults == ["no core"]
        assert listener.connection_count() == 2
        for peer in (first, third):
            peer.send(encode(Connect("", True, 0)))
        loop.run()
        second.look()
        assert second.closed
        with pytest.raises(StopIteration):
            listener.stop(0.0).send(None)
        for peer in (first, second, third):
            peer.go()


async def test_one_that_was_closed_meanwhile_does_not_hold_up_the_others() -> None:
    """A connection that is closed at once still waits for the end of the tick, and asks for it again when all stop."""
    client = Client("alice")
    with WorkerDouble() as worker:
        assert worker.listener is not None
        early = worker.device()
        former = worker.unconnected()
        former.send(Connect("id", level=5))
        worker.admit(client)
        newcomer = worker.unconnected()
        newcomer.send(Connect("id", level=5))
        late = worker.device()
        # No pass is under way, so output waits: a DISCONNECT for the former one, and a CONNACK for the newcomer.
        worker.admit(client)
        stopping = asyncio.create_task(worker.listener.stop(60.0))
        await asyncio.sleep(0)
        worker.loop.run()
        assert [device.closed for device in (early, former, newcomer, late)] == [True] * 4
        worker.loop.now += 60
        await stopping


def test_a_connection_in_excess_is_closed() -> None:
    with WorkerDouble() as worker:
        assert worker.listener is not None
        worker.listener.set_limits(2**20, 2)
        devices = [worker.unconnected() for _ in range(3)]
        assert [device.closed for device in devices] == [False, False, True]
        assert worker.reason("closed", "too_many_connections") == 1


def test_the_end_of_a_peer_comes_after_what_it_has_sent(worker: WorkerDouble) -> None:
    device = worker.device()
    device.send(Publish(f"kp1/{APP}/dcx/t/json", b"last", 0, 0))
    device.drop()
    worker.identify()
    assert [data.payload for _, data in worker.published()] == [b"last"]
    assert worker.sessions.count == 0
