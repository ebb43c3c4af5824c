"""The servers of the bench: their configuration, their CPU clock, their start and stop."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaa_bench import processes
from kaa_bench.compare.idle import IdleDevices
from kaa_bench.compare.pushing import Pusher, PushSpec
from kaa_bench.errors import BenchError
from kaa_bench.peers.mqtt_floor import MqttFloor
from kaa_bench.peers.servers import PEERS, AiohttpNats, NatsFloor, Peer
from kaa_bench.processes import (
    HOST,
    Gateway,
    NatsServer,
    Server,
    cpu_seconds,
    free_port,
    private_memory,
    process_tree,
)
from kaa_gateway import config

SPIN = (
    "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(flush=True)\n"
)


class Failing(Server):
    name = "failing"

    def command(self) -> list[str]:
        return [sys.executable, "-c", "print('no such luck')"]


class ShortLived(Server):
    name = "short-lived"

    def command(self) -> list[str]:
        serve = (
            f"import socket, time; socket.create_server(('127.0.0.1', {self.ports[0]})).accept();"
            "time.sleep(1); print('farewell')"
        )
        return [sys.executable, "-c", serve]


class DeafToCoap(Server):
    """It has the port, and never answers."""

    name = "deaf"

    def command(self) -> list[str]:
        serve = (
            "import socket; heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            f"heard.bind(('127.0.0.1', {self.coap_port})); heard.recv(9)"
        )
        return [sys.executable, "-c", serve]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """One that is not started."""
    nats = NatsServer()
    gateway = Gateway(nats)
    yield gateway
    gateway.stop()
    nats.stop()


def test_the_gateway_accepts_its_configuration(gateway: Gateway) -> None:
    gateway.command()
    environment = gateway.environment()
    loaded = config.load(Path(environment["APP_CONFIG_PATH"]), environment)
    assert loaded.warnings == ()
    transports = loaded.transports
    assert {protocol: port for protocol, (_, port) in gateway.addresses.items()} == {
        "mqtt": transports.mqtt.tcp.port,
        "http": transports.http.port,
        "coap": transports.coap.port,
        "kpudp": transports.udp.port,
        "coap-tcp": transports.coap.tcp.port,
        "mqtt-sn": transports.mqtt_sn.port,
    }
    assert loaded.app_versions["bench_v1"].allowed == {"dcx"}
    assert loaded.extension_instances["dcx"].endpoint_aware


def test_the_callers_settings_do_not_reach_the_gateway(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAA_KPC_WORKERS", "7")
    assert "KAA_KPC_WORKERS" not in gateway.environment()


def test_cpu_is_that_of_the_whole_process_tree() -> None:
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN + 'input()'!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        tree = process_tree(parent.pid)
        assert len(tree) == 2
        assert cpu_seconds(tree[1]) >= 0.2
        assert sum(map(cpu_seconds, tree)) > cpu_seconds(tree[1])
        parent.communicate(b"\n")
        with pytest.raises(BenchError, match="has ended"):
            cpu_seconds(tree[1])


def test_a_server_that_ends_says_what_it_printed() -> None:
    with pytest.raises(BenchError, match="failing did not start: no such luck"), Failing(1):
        pass


def test_a_server_whose_port_another_program_has_did_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as other:
        server = Failing(other.getsockname()[1])
        accepts = server._ready

        def accepts_after_the_end() -> bool:
            server.wait()
            return accepts()

        monkeypatch.setattr(server, "_ready", accepts_after_the_end)
        with pytest.raises(BenchError, match="failing did not start: no such luck"), server:
            pass


def test_another_bench_on_this_machine_gets_other_ports() -> None:
    code = (
        "from kaa_bench import processes; import sys; processes._candidates = iter(map(int, sys.argv[1:]));"
        "print(processes.free_port())"
    )
    mine, free = free_port(), free_port()
    processes._reserved.pop().close()
    got = subprocess.run(
        [sys.executable, "-c", code, str(mine), str(free)], capture_output=True, text=True, check=True
    )
    assert int(got.stdout) == free


def test_the_cpu_of_a_server_that_has_died_is_an_error_with_its_last_words() -> None:
    def use_until_it_ends(server: Server) -> None:
        while True:
            server.cpu_seconds()

    with ShortLived(free_port()) as server, pytest.raises(BenchError, match="has ended: farewell"):
        use_until_it_ends(server)


def test_nats_server_starts_and_stops_and_leaves_nothing() -> None:
    with NatsServer() as server:
        assert server.cpu_seconds() > 0
        assert server.directory.exists()
    assert not server.directory.exists()


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.name)
def test_a_peer_that_is_not_installed_says_so(kind: type[Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "program", staticmethod(lambda: None))
    server = kind(NatsServer()) if issubclass(kind, AiohttpNats | NatsFloor) else kind()
    with pytest.raises(BenchError, match=re.escape(f"{kind.title} is not installed")), server:
        pass


def test_the_floor_of_mqtt_connects_devices_and_sends_them_what_is_pushed() -> None:
    with NatsServer() as nats, MqttFloor(nats) as floor:
        with IdleDevices(floor.address) as devices:
            devices.connect(20)
            devices.disconnect()
        # The first push to each device is compared whole, and all of them are waited for.
        with Pusher(PushSpec(floor.address, nats.address, "nats"), 3) as pusher:
            assert pusher.run(messages=100).messages >= 100


def test_a_server_of_coap_is_ready_when_it_answers_a_ping() -> None:
    with pytest.raises(BenchError, match="did not start"), DeafToCoap(coap_port=free_port(socket.SOCK_DGRAM)):
        pass


def test_memory_is_what_belongs_to_the_process_alone() -> None:
    script = "data = bytearray(64 << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert private_memory(process.pid) > 64 << 20
        process.communicate(b"\n")
