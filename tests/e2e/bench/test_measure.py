"""A whole run with all its processes, and a stand-in for the gateway that may lose messages."""

import sys
from pathlib import Path

import pytest
from kaa_bench.compare import measure
from kaa_bench.compare.idle import IdleDevices
from kaa_bench.compare.measure import Work, measure_gateway, measure_peer
from kaa_bench.compare.rows import Row
from kaa_bench.connecting import Carrier, LoadSpec
from kaa_bench.peers.servers import (
    Aiocoap,
    AiohttpNats,
    Amqtt,
    CoapFloor,
    HttpFloor,
    Httptools,
    Libcoap,
    Mosquitto,
    NatsFloor,
    NatsMqtt,
    Peer,
)
from kaa_bench.processes import Gateway, NatsServer

ALL = 1_000_000_000
LOSSY_GATEWAY = Path(__file__).with_name("lossy_gateway.py")
ROOT = Path(__file__).parents[3]
QOS0 = Row("qos0", "", LoadSpec("mqtt", connections=2, qos=0, window=16))
QOS1 = Row("qos1", "", LoadSpec("mqtt", connections=2, qos=1, window=16))
HTTP = Row("http", "", LoadSpec("http", connections=2))
COAP = Row("coap", "", LoadSpec("coap", connections=2))
KPUDP = Row("kpudp", "", LoadSpec("kpudp", connections=2, window=16))


class StandIn(Gateway):
    def __init__(self, nats: NatsServer, keep: int) -> None:
        super().__init__(nats)
        self.ports = self.ports[:3]  # it has neither TLS nor WebSocket
        udp_ports = self.addresses["coap"][1], self.addresses["kpudp"][1]
        self._command = [f"nats://127.0.0.1:{nats.ports[0]}", *map(str, (*self.ports[:3], *udp_ports, keep))]

    def command(self) -> list[str]:
        return [sys.executable, str(LOSSY_GATEWAY), *self._command]

    def environment(self) -> dict[str, str]:
        return super().environment()


class Buffering(NatsMqtt):
    flood = 300


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WARM_UP_S", 0.05)


@pytest.mark.parametrize("row", [QOS0, QOS1, HTTP, COAP, KPUDP], ids=lambda row: row.name)
def test_a_run_counts_what_was_sent_acknowledged_and_received(row: Row) -> None:
    with NatsServer() as nats, StandIn(nats, keep=ALL) as gateway:
        run = measure_gateway(row, gateway, nats, Work(messages=500))
    assert run.messages == run.received == 500
    assert run.acknowledged == (0 if row is QOS0 else 500)
    assert run.errors == {}
    assert run.server_cpu > 0
    assert run.nats_cpu is not None
    assert run.nats_cpu > 0
    assert run.generator_cpu > 0


@pytest.mark.parametrize("row", [QOS1, HTTP, COAP, KPUDP], ids=lambda row: row.name)
def test_acknowledged_messages_that_do_not_arrive_are_counted_as_lost(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SETTLE_S", 0.3)
    with NatsServer() as nats, StandIn(nats, keep=1) as gateway:
        run = measure_gateway(row, gateway, nats, Work(messages=500))
    # The one message that each connection keeps is spent in the warm-up.
    assert run.lost_of_acknowledged == run.acknowledged == 500
    assert "LOST 500 acknowledged messages" in run.remarks


@pytest.mark.parametrize(
    ("peer", "row"),
    [
        pytest.param(
            peer,
            row,
            id=peer.name,
            marks=pytest.mark.skipif(peer.program() is None, reason=f"{peer.title} is not installed"),
        )
        for peer, row in (
            (Mosquitto, QOS1),
            (NatsMqtt, QOS0),
            (NatsMqtt, QOS1),
            (Amqtt, QOS1),
            (Libcoap, COAP),
            (Aiocoap, COAP),
            (Httptools, HTTP),
        )
    ],
)
def test_a_peer_does_the_same_work(peer: type[Peer], row: Row) -> None:
    with NatsServer() as nats, peer() as server:
        run = measure_peer(row, server, Work(messages=500), nats)
    acknowledged = 0 if row is QOS0 else 500
    assert (run.messages, run.acknowledged, run.received, run.errors) == (500, acknowledged, None, {})
    assert run.server_cpu > 0


@pytest.mark.parametrize(("peer", "row"), [(AiohttpNats, HTTP), (HttpFloor, HTTP), (CoapFloor, COAP)])
def test_a_peer_that_does_all_of_the_work_has_its_messages_counted_by_the_extension(
    peer: type[AiohttpNats | NatsFloor], row: Row
) -> None:
    with NatsServer() as nats, peer(nats) as server:
        run = measure_peer(row, server, Work(messages=200), nats)
    assert (run.messages, run.acknowledged, run.received, run.errors) == (200, 200, 200, {})
    assert run.remarks == []


def test_a_peer_that_queues_without_a_bound_is_flooded_with_so_many_messages() -> None:
    with NatsServer() as nats, Buffering() as server:
        run = measure_peer(QOS0, server, Work(seconds=60), nats)
    assert run.messages == Buffering.flood


@pytest.mark.parametrize("carrier", ["tls", "websocket"])
@pytest.mark.parametrize("qos", [0, 1])
def test_loads_of_mqtt_have_other_carriers(carrier: Carrier, qos: int) -> None:
    row = Row("carried", "", LoadSpec("mqtt", connections=3, qos=qos, window=16, carrier=carrier))
    with NatsServer() as nats, Gateway(nats) as gateway:
        run = measure_gateway(row, gateway, nats, Work(messages=2000))
    assert run.messages == run.received == 2000
    assert run.acknowledged == (0 if qos == 0 else 2000)
    assert not run.errors


def test_a_tls_session_is_resumed_if_asked() -> None:
    with (
        NatsServer() as nats,
        Gateway(nats) as gateway,
        IdleDevices(gateway.carriers["tls"], encrypted=True) as devices,
    ):
        assert devices.connect(3) == 0
        assert devices.connect(3, resuming=True) == 2  # the first has no session yet
        assert devices.connect(3, resuming=True) == 3
        devices.disconnect()
