"""A client of a fleet soak does not wait for ever for an answer, and a run names clients that do not come to rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import msgspec
import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.errors import BenchError
from kaa_bench.fleet import client as client_module
from kaa_bench.fleet import connection as connection_module
from kaa_bench.fleet import run as run_module
from kaa_bench.fleet.client import Client
from kaa_bench.fleet.connection import Connection
from kaa_bench.fleet.credentials import Access
from kaa_bench.fleet.report import print_fleet
from kaa_bench.fleet.run import FleetRun, Result
from kaa_bench.fleet.tally import Loss, Tally, Unanswered
from nats.aio.client import Client as NatsClient
from rich.console import Console

from tests.support.esp import until
from tests.support.nats import HOST


def answer_of(packet: mqtt.Packet) -> mqtt.Packet | None:
    if isinstance(packet, mqtt.Connect):
        return mqtt.Connack(False, 0)
    if isinstance(packet, mqtt.Subscribe):
        return mqtt.Suback(packet.packet_id, (2, 1))
    if isinstance(packet, mqtt.Publish):
        return mqtt.Puback(packet.packet_id)
    return None


@asynccontextmanager
async def living(unanswered: Collection[type[mqtt.Packet]]) -> AsyncIterator[tuple[Client, Tally]]:
    """A client of a gateway that does not answer packets of `unanswered`, which may grow smaller."""
    connections: list[Connection] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(0, reader, writer)
        connections.append(connection)
        try:
            while True:
                packet = await connection.receive()
                answer = answer_of(packet)
                if answer is not None and type(packet) not in unanswered:
                    connection.send(answer)
        except OSError:
            writer.transport.abort()

    server = await asyncio.start_server(serve, HOST, 0)
    tally = Tally()
    access = Access([server.sockets[0].getsockname()[1]])
    client = Client(0, access, tally, send_s=0.01, roam_s=1000, away_s=0.01, seed=1)
    task = asyncio.create_task(client.run())
    try:
        yield client, tally
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        for connection in connections:
            connection.abort()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LOOK_S", 0.01)
    for module in (client_module, connection_module):
        monkeypatch.setattr(module, "ANSWER_S", 0.2)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("packet", "awaited"), [(mqtt.Connect, "CONNACK"), (mqtt.Subscribe, "SUBACK"), (mqtt.Publish, "PUBACK")]
)
async def test_a_packet_without_an_answer_is_counted_and_the_client_comes_back(
    packet: type[mqtt.Packet], awaited: str
) -> None:
    """Also one that is paused: it comes to rest when it has got its answer."""
    unanswered = {packet}
    async with living(unanswered) as (client, tally):
        if packet is mqtt.Publish:
            await until(lambda: tally.sent > 0, "a message")
        client.paused = True
        await until(lambda: len(tally.unanswered) > 0, "the end of the client's patience")
        first = tally.unanswered[0]
        assert (first.client, first.awaited, first.gateway) == (client.token, awaited, 0)
        assert first.since < first.at
        assert client.waits_for is not None
        assert client.gateway is None
        unanswered.clear()
        await until(lambda: client.gateway == 0, "rest")
        assert client.waits_for is None


@pytest.mark.parametrize(
    ("packet", "waits_for"),
    [
        (mqtt.Connect, "CONNACK of gateway 0"),
        (mqtt.Subscribe, "SUBACK of gateway 0"),
        (mqtt.Publish, " PUBACKs of gateway 0"),
    ],
)
async def test_a_client_says_what_it_waits_for(packet: type[mqtt.Packet], waits_for: str) -> None:
    async with living({packet}) as (client, _):
        assert client.waits_for == "its start"
        await until(lambda: waits_for in str(client.waits_for), waits_for)


async def test_a_run_names_the_clients_that_do_not_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "SETTLE_S", 0.0)
    monkeypatch.setattr(run_module, "SHOWN_RESTLESS", 2)
    run = FleetRun(print, clients=5, processes=2, send_s=1, roam_s=1, pause_s=1, seed=1)
    answers = {
        "pause": [b'"done"', b'"done"'],
        "unrest": [b'{"a": "SUBACK of gateway 1", "b": "2 PUBACKs of gateway 0"}', b'{"c": "its start"}'],
    }

    async def tell(command: str) -> list[bytes]:
        return answers[command]

    monkeypatch.setattr(run, "_tell", tell)
    with pytest.raises(BenchError) as caught:
        await run._rest(NatsClient())
    assert str(caught.value) == (
        "3 clients have not come to rest in 0 s: a waits for SUBACK of gateway 1; "
        "b waits for 2 PUBACKs of gateway 0; and 1 more"
    )


def test_what_had_no_answer_is_a_violation_unless_a_nats_server_was_away() -> None:
    run = FleetRun(print, clients=1, processes=1, send_s=1, roam_s=1, pause_s=1, seed=1)
    run._nats_away.append((100.0, 120.0))
    spans = ((30.0, 99.0), (50.0, 110.0), (90.0, 150.0), (121.0, 181.0))
    found = [run._is_excused_unanswered(Unanswered("a", "PUBACK", 0, *span)) for span in spans]
    assert found == [False, True, True, False]


def test_a_lost_session_is_a_violation_unless_a_worker_was_killed_that_may_have_had_it() -> None:
    """A worker of gateway 1 is killed at 100 s. A client may read its CONNACK a moment later."""
    run = FleetRun(print, clients=1, processes=1, send_s=1, roam_s=1, pause_s=1, seed=1)
    run._killed.append((100.0, 1))
    cases = ((90.0, 99.0, 1), (90.0, 110.0, 0), (100.2, 110.0, 1), (100.2, 110.0, 0), (103.0, 110.0, 1))
    found = [run._is_excused_loss(Loss("a", at, since, gateway, 2)) for since, at, gateway in cases]
    assert found == [False, True, True, False, False]


def test_a_report_names_what_had_no_answer() -> None:
    tally = Tally(unanswered=[Unanswered("fleet-7", "PUBACK", 2, 140.0, 200.0)])
    result = msgspec.convert(
        {
            **dict.fromkeys(Result.__struct_fields__, 0),
            **{key: [] for key in ("excused_overlaps", "presence_faults", "presence_waits")},
            "tally": {},
            "began": 100.0,
            "seconds": 300.0,
            "faults": {},
        },
        Result,
    )
    result.tally = tally
    console = Console(record=True, width=500)
    print_fleet(result, 1, console)
    text = console.export_text()
    assert "at 100 s, fleet-7 had waited for 60 s for the PUBACK of gateway 2" in text
    assert "without an answer in time: 1;" in text
    assert result.violations() == 1
