"""The client of the fleet soak sees what a gateway must not do: a server of the test does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.fleet import client as module
from kaa_bench.fleet.client import Client
from kaa_bench.fleet.connection import Connection
from kaa_bench.fleet.credentials import Access
from kaa_bench.fleet.tally import Tally

from tests.support.esp import until
from tests.support.nats import HOST

TOPIC = "kp1/fleet_v1/fleet/fleet-0/{}/status"


class WrongGateway:
    """Speaks MQTT; pushes what it is told, and leaves old connections open unless it is told to close them."""

    def __init__(self, *, closes_old: bool) -> None:
        self.connections: list[Connection] = []
        self.packets: list[mqtt.Packet] = []
        self.forgets = False
        """Whether it has lost all sessions."""
        self._closes_old = closes_old

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(0, reader, writer)
        try:
            while True:
                packet = await connection.receive()
                self.packets.append(packet)
                if isinstance(packet, mqtt.Connect):
                    if self._closes_old:
                        for old in self.connections:
                            old.abort()
                    connection.send(mqtt.Connack(bool(self.connections) and not self.forgets, 0))
                    self.connections.append(connection)
                elif isinstance(packet, mqtt.Subscribe):
                    connection.send(mqtt.Suback(packet.packet_id, (2, 1)))
                elif isinstance(packet, mqtt.Pingreq):
                    connection.send(mqtt.Pingresp())
                elif isinstance(packet, mqtt.Publish):
                    connection.send(mqtt.Puback(packet.packet_id))
        except OSError:
            writer.transport.abort()

    def push(self, payload: bytes, qos: int, packet_id: int, *, dup: bool = False, path: str = "") -> None:
        topic = TOPIC.format(path or f"qos{qos}")
        self.connections[-1].send(mqtt.Publish(topic, payload, qos, packet_id, dup))

    def count(self, kind: type[mqtt.Packet]) -> int:
        return sum(isinstance(packet, kind) for packet in self.packets)


@asynccontextmanager
async def living(
    roam_s: float, *, closes_old: bool = True
) -> AsyncIterator[tuple[WrongGateway, Client, Tally]]:
    """A client that sends ten messages a second."""
    gateway, tally = WrongGateway(closes_old=closes_old), Tally()
    server = await asyncio.start_server(gateway.serve, HOST, 0)
    client = Client(
        0, Access([server.sockets[0].getsockname()[1]]), tally, send_s=0.1, roam_s=roam_s, away_s=1, seed=1
    )
    task = asyncio.create_task(client.run())
    try:
        await until(lambda: tally.acknowledged > 0, "a message")
        yield gateway, client, tally
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()


async def test_a_push_that_is_delivered_twice_is_seen() -> None:
    async with living(1000) as (gateway, _, tally):
        for number, packet_id in enumerate((5, 6)):
            gateway.push(b"2", 2, packet_id)
            await until(lambda number=number: gateway.count(mqtt.Pubrec) > number, "PUBREC")  # type: ignore[misc]
            gateway.connections[-1].send(mqtt.Pubrel(packet_id))
            await until(lambda number=number: gateway.count(mqtt.Pubcomp) > number, "PUBCOMP")  # type: ignore[misc]
        assert (tally.pushed, len(tally.twice)) == (1, 1)


async def test_a_repetition_of_qos_2_before_pubrel_is_none() -> None:
    async with living(1000) as (gateway, _, tally):
        gateway.push(b"2", 2, 5)
        gateway.push(b"2", 2, 5, dup=True)
        await until(lambda: gateway.count(mqtt.Pubrec) == 2, "both PUBRECs")
        assert (tally.pushed, len(tally.twice)) == (1, 0)


async def test_a_push_after_its_acknowledgement_is_seen() -> None:
    async with living(1000) as (gateway, _, tally):
        gateway.push(b"1", 1, 7)
        await until(lambda: gateway.count(mqtt.Puback) == 1, "PUBACK")
        # The client knows that its PUBACK has arrived when a later PINGREQ is answered.
        answered = gateway.count(mqtt.Pingreq) + 2
        await until(lambda: gateway.count(mqtt.Pingreq) > answered, "two rounds of PINGREQ")
        gateway.push(b"1", 1, 7, dup=True)
        await until(lambda: gateway.count(mqtt.Puback) == 2, "the other PUBACK")
        assert (tally.pushed, tally.repeated, len(tally.after_acknowledgement)) == (1, 0, 1)


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "left open"])
async def test_an_old_connection_that_stays_is_seen(monkeypatch: pytest.MonkeyPatch, closes: bool) -> None:
    monkeypatch.setattr(module, "STAY_S", 0.0)
    monkeypatch.setattr(module, "WATCHED_S", 30.0 if closes else 0.3)
    async with living(0.3, closes_old=closes) as (_, _, tally):
        if closes:
            await until(lambda: tally.taken_over > 2, "takeovers")
            assert tally.overlaps == []
        else:
            await until(lambda: len(tally.overlaps) > 0, "the overlap")
            assert not tally.overlaps[-1].ended


async def test_a_session_that_is_not_found_is_seen() -> None:
    async with living(1000) as (gateway, client, tally):
        await until(lambda: client.gateway is not None, "the subscription")
        gateway.forgets = True
        gateway.connections[-1].abort()
        await until(lambda: len(tally.begun) == 1, "the loss")
        assert tally.begun[0].gateway == 0
        assert tally.begun[0].since < tally.begun[0].at


async def test_answers_and_pushes_that_do_not_come_are_seen() -> None:
    async with living(1000) as (gateway, client, tally):
        await until(lambda: tally.sent > 1, "two messages")
        before = len(client.awaited)
        assert before >= 4
        gateway.push(b"1", 1, 5, path="json/1")
        await until(lambda: tally.answered == 1, "the answer")
        gateway.push(b"1", 1, 6)
        await until(lambda: tally.pushed == 1, "the push")
        assert [missing.kind for missing in client.awaited[:2]] == ["push", "answer"]
        assert all(missing.sent_at > 0 for missing in client.awaited)
