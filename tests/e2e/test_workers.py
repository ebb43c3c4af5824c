"""`kaa.kpc.workers`: processes that share the ports, of which one may die, and none outlives the others' master."""

import asyncio
import json
import os
import signal
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest
from kaa_gateway.supervision.processes import HANG_TIMEOUT
from kaa_gateway.wire.kpudp import Message, Reason, Type, decode, encode

from tests.support.esp import until
from tests.support.gateway import REPLICA, GatewayProcess
from tests.support.kpudp import RawDevice
from tests.support.load import Counter, Device
from tests.support.mqtt import MqttPeer, mqtt_client
from tests.support.nats import HOST, NatsServer
from tests.support.processes import alive, all_ended, children, kill

TWO_WORKERS = {"kaa": {"kpc": {"workers": 2}}}
CLIENTS = 32
START_AND_STOP_S = 120.0
"""Several Python processes start, on a machine that may be busy."""


class Workers:
    """A gateway of two worker processes."""

    def __init__(self, gateway: GatewayProcess, directory: Path) -> None:
        self.gateway = gateway
        self.directory = directory  # of temporary files
        self.seen: dict[int, str] = {}

    def pids(self) -> list[int]:
        """Worker processes that are there now."""
        now = children(self.gateway.pid) if self.gateway.running else {}
        self.seen |= now
        return sorted(pid for pid, command in now.items() if "spawn_main" in command and alive(pid))

    def ready(self) -> list[bool]:
        """Whether each worker says that it serves."""
        answer = httpx.get(f"http://{HOST}:{self.gateway.admin_port}/health/ready").json()
        return [worker["status"] == "UP" for _, worker in sorted(answer["workers"].items())]

    def connections(self) -> list[float]:
        """MQTT connections that each worker has accepted."""
        found = self.gateway.metrics_by_worker()
        return [found[str(index)].get(("connections_opened", "mqtt"), 0.0) for index in range(2)]


@pytest.fixture
def workers(nats_server: NatsServer, tmp_path: Path) -> Iterator[Workers]:
    gateway = GatewayProcess(nats_server.url, TWO_WORKERS, environment={"TMPDIR": str(tmp_path)})
    found = Workers(gateway, tmp_path)
    try:
        gateway.start()
        found.pids()
        yield found
        found.pids()
        gateway.stop()
        assert all_ended(found.seen), found.seen
        assert "Traceback" not in gateway.log, gateway.log
    finally:
        kill(found.seen)
        gateway.close()


async def both_ready(workers: Workers) -> None:
    await until(lambda: workers.ready() == [True, True], "both workers", START_AND_STOP_S)


async def connected(workers: Workers, stack: AsyncExitStack) -> list[MqttPeer]:
    """Clients, so many that both workers have some: the kernel spreads them."""
    clients: list[MqttPeer] = []
    while not clients or min(workers.connections()) < 2:
        clients += [
            await stack.enter_async_context(mqtt_client(workers.gateway.mqtt_port)) for _ in range(CLIENTS)
        ]
    return clients


async def test_two_processes_share_the_port_under_replica_ids_of_their_own(
    workers: Workers, nats_server: NatsServer
) -> None:
    await both_ready(workers)
    assert len(workers.pids()) == 2
    async with Counter(nats_server.url) as counter:
        devices = [
            Device(workers.gateway.mqtt_port, f"device-{number}", window=4) for number in range(CLIENTS)
        ]
        for device in devices:
            device.start()
        await asyncio.gather(*(device.acknowledges(10) for device in devices))
        await asyncio.gather(*(device.finish() for device in devices))
        await counter.settle()
        assert all(counter.missing(device) == set() for device in devices)
        assert all(count > 0 for count in workers.connections())
        replies = Tally(reply.split(".")[3] for reply in counter.replies)
    assert set(replies) == {f"{REPLICA}-0", f"{REPLICA}-1"}


async def test_a_worker_that_dies_takes_only_its_own_connections_and_comes_back(workers: Workers) -> None:
    await both_ready(workers)
    async with AsyncExitStack() as stack:
        clients = await connected(workers, stack)
        before = workers.connections()
        victim, other = workers.pids()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(set(workers.pids()) - {victim, other}) == 1, "a worker in its place")
        await both_ready(workers)
        tally = Tally(await asyncio.gather(*(still_there(client) for client in clients)))
        assert sorted((tally[True], tally[False])) == sorted(int(count) for count in before)
    assert other in workers.pids()
    assert "worker died, starting it again" in workers.gateway.log
    async with mqtt_client(workers.gateway.mqtt_port):
        pass


async def still_there(client: MqttPeer) -> bool:
    try:
        return await client.until_pingresp() == []
    except (AssertionError, ConnectionError):
        return False


async def test_sigterm_stops_all_and_loses_nothing_that_was_acknowledged(
    workers: Workers, nats_server: NatsServer
) -> None:
    await both_ready(workers)
    async with Counter(nats_server.url) as counter:
        devices = [Device(workers.gateway.mqtt_port, f"device-{number}") for number in range(6)]
        for device in devices:
            device.start()
        await asyncio.gather(*(device.acknowledges(100) for device in devices))
        workers.pids()
        workers.gateway.terminate()
        await asyncio.gather(*(device.ended() for device in devices))
        await until(lambda: not workers.gateway.running, "the end", START_AND_STOP_S)
        await counter.settle()
        for device in devices:
            assert counter.missing(device) == set()
    assert workers.gateway.stop() == 0
    assert workers.gateway.log.count('"stopped"') == 2


async def test_workers_do_not_outlive_a_master_that_was_killed(workers: Workers) -> None:
    """Nor do their sockets."""
    await both_ready(workers)
    pids = workers.pids()
    assert len(list(workers.directory.glob("kaa-gateway-*/worker-*.sock"))) == 2
    workers.gateway.kill()
    assert all_ended(workers.seen), workers.seen
    assert list(workers.directory.iterdir()) == []
    assert len(pids) == 2
    assert workers.gateway.log.count("the supervisor has gone") == 2
    assert workers.gateway.log.count('"stopped"') == 2


@pytest.mark.parametrize("key", ["kaa.kpc.transports.mqtt.tcp.port", "server.port"])
async def test_a_port_that_is_taken_ends_all(nats_server: NatsServer, tmp_path: Path, key: str) -> None:
    gateway = GatewayProcess(nats_server.url, TWO_WORKERS, environment={"TMPDIR": str(tmp_path)})
    workers = Workers(gateway, tmp_path)
    port = gateway.admin_port if key == "server.port" else gateway.mqtt_port
    server = await asyncio.start_server(lambda reader, writer: writer.close(), HOST, port)
    try:
        gateway.launch()

        def ended() -> bool:
            workers.pids()
            return not gateway.running

        await until(ended, "the end", START_AND_STOP_S)
        assert gateway.stop() == 1
        assert f"({key}): is in use" in gateway.log
        assert "Traceback" not in gateway.log
        assert all_ended(workers.seen), workers.seen
    finally:
        server.close()
        kill(workers.seen)
        gateway.close()


async def test_a_worker_that_cannot_start_again_does_not_end_those_that_serve(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """A file that workers read at their start is broken for a while, in which one of them dies."""
    gateway = GatewayProcess(
        nats_server.url,
        TWO_WORKERS,
        tokens={"app_v1": {"token-1": "endpoint-1"}},
        environment={"TMPDIR": str(tmp_path)},
    )
    workers = Workers(gateway, tmp_path)
    file = gateway.config_path.parent / "tokens.yml"
    good = file.read_text()
    try:
        gateway.start()
        await both_ready(workers)
        victim, other = workers.pids()
        file.write_text("")
        os.kill(victim, signal.SIGKILL)
        await until(lambda: "worker cannot start" in gateway.log, "the attempt", START_AND_STOP_S)
        await until(lambda: gateway.log.count("starting it again") > 1, "another", START_AND_STOP_S)
        assert gateway.ready()
        async with mqtt_client(gateway.mqtt_port):
            pass
        file.write_text(good)
        await both_ready(workers)
        assert other in workers.pids()
        assert gateway.stop() == 0
        assert all_ended(workers.seen), workers.seen
        assert "Traceback" not in gateway.log, gateway.log
    finally:
        kill(workers.seen)
        gateway.close()


@pytest.mark.slow
async def test_a_worker_that_hangs_is_killed_and_counted(workers: Workers) -> None:
    await both_ready(workers)
    victim, other = workers.pids()
    os.kill(victim, signal.SIGSTOP)
    await until(lambda: not alive(victim), "its end", HANG_TIMEOUT + START_AND_STOP_S)
    await both_ready(workers)
    assert other in workers.pids()
    assert "worker hangs, killing it" in workers.gateway.log
    assert sum(workers.gateway.metrics_by_worker()[str(index)]["worker_hangs",] for index in range(2)) == 1


async def test_a_second_gateway_on_the_same_ports_is_refused(
    workers: Workers, nats_server: NatsServer
) -> None:
    """The kernel would share the ports between both."""
    await both_ready(workers)
    first = workers.gateway
    second = GatewayProcess(nats_server.url)
    for name, port in (("mqtt", first.mqtt_port), ("coap", first.coap_port)):
        transports: dict[str, object] = (
            {"mqtt": {"tcp": {"port": port}}} if name == "mqtt" else {"coap": {"port": port}}
        )
        document = second.document_with({"kaa": {"kpc": {"workers": 2, "transports": transports}}})
        second.config_path.write_text(json.dumps(document))
        try:
            second.launch()
            await until(lambda: not second.running, "its end", START_AND_STOP_S)
            assert second.stop() == 1
            assert f"port {port} (kaa.kpc.transports.{name}" in second.log
            assert "is in use" in second.log
        finally:
            second.kill()
    second.close()
    assert workers.ready() == [True, True]


async def test_the_end_of_a_worker_moves_no_peer_of_another(workers: Workers) -> None:
    """Over UDP: each peer loses its aliases once, when the worker that has it is killed."""
    path = "kp1/app_v1/dcx/tok/json"
    await both_ready(workers)
    with ExitStack() as stack:
        devices = [stack.enter_context(RawDevice(workers.gateway.udp_port)) for _ in range(CLIENTS)]

        async def answer(device: RawDevice, message: Message) -> int:
            """Send a message, and return the reason of its RESET: 503, as there is no extension, if nothing else."""
            device.send(encode(1, [message]))
            while True:
                for frame in decode(await device.receive())[1]:
                    if frame.type == Type.RESET and frame.message_id == message.message_id:
                        return frame.status

        async def forgotten(message_id: int) -> set[int]:
            """Return which devices have to give their path again, after they have done so."""
            found = set()
            message = Message(Type.CONFIRMED_DATA, message_id, alias=1)
            for number, device in enumerate(devices):
                if await answer(device, message) == Reason.UNKNOWN_ALIAS:
                    found.add(number)
                    assert await answer(device, message._replace(path=path)) != Reason.UNKNOWN_ALIAS
            return found

        assert await forgotten(1) == set(range(CLIENTS))
        assert await forgotten(2) == set()
        of_workers = []
        for message_id, pid in enumerate(workers.pids(), 3):
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: pid not in workers.pids(), "the end of the worker")  # type: ignore[misc]
            await until(lambda: len(workers.pids()) == 2, "another worker", START_AND_STOP_S)
            await both_ready(workers)
            of_workers.append(await forgotten(message_id))
        assert of_workers[0].isdisjoint(of_workers[1])
        assert of_workers[0] | of_workers[1] == set(range(CLIENTS))
        assert min(map(len, of_workers)) > 0
