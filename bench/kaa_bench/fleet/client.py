"""A simulated client: sends messages, gets pushes, and changes its gateway now and then, in one of several ways."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.fleet.connection import ANSWER_S, Connection
from kaa_bench.fleet.names import (
    ANSWER,
    APP_VERSION,
    EXTENSION,
    PUSH,
    PUSH_PATHS,
    source_of,
    token_of,
)
from kaa_bench.fleet.tally import Loss, Missing, Overlap, Unanswered

if TYPE_CHECKING:
    from kaa_bench.fleet.credentials import Access
    from kaa_bench.fleet.tally import Tally

STAY_S = 2.0
"""The time that a client stays at least where it is, so that all NATS servers know."""
WATCHED_S = 30.0
"""How long the end of an old connection is awaited."""
PACKET_IDS = 60_000
OUTSTANDING_MAX = 100
SUBSCRIBE_ID = 65_535
LOOK_S = 2.0
"""How often a client looks whether a pause is over."""


class Client:
    """Client number `number`, which connects as `access` says."""

    def __init__(
        self,
        number: int,
        access: Access,
        tally: Tally,
        *,
        send_s: float,
        roam_s: float,
        away_s: float,
        seed: int,
    ) -> None:
        self.token = token_of(number)
        self.acknowledged: list[int] = []
        """The messages that the gateway has acknowledged."""
        self.paused = False
        self._number = number
        self._access = access
        self._tally = tally
        self._send_s = send_s
        self._roam_s = roam_s
        self._away_s = away_s
        """It comes back after this time at the latest when it has lost its connection."""
        self._random = random.Random(seed)
        self._connection: Connection | None = None
        self._connecting = "its start"
        """What it waits for while it has no connection."""
        self._reading: set[asyncio.Task[None]] = set()
        self._subscribed = False
        self._last = 0
        self._outstanding: dict[int, int] = {}
        """The messages without PUBACK, by packet identifier."""
        self._receiving: set[int] = set()
        """The packet identifiers of QoS 2 between PUBLISH and PUBREL."""
        self._exactly_once: set[int] = set()
        self._settled: set[int] = set()
        """Pushes of QoS 1 whose acknowledgement the gateway has."""
        self._awaited: dict[tuple[str, int], float] = {}
        """The pushes and answers that are to come, each with the Unix time at which its message was sent."""
        self._seen_at = 0.0
        """When it was connected last, as Unix time."""

    @property
    def gateway(self) -> int | None:
        """The gateway that it is connected to and has subscribed at, if nothing is under way."""
        connection = self._connection
        return None if connection is None or self.waits_for is not None else connection.gateway

    @property
    def waits_for(self) -> str | None:
        """What is under way, in words; None if nothing is."""
        connection = self._connection
        if connection is None or connection.ended.is_set():
            return self._connecting
        if not self._subscribed:
            return f"SUBACK of gateway {connection.gateway}"
        if self._outstanding:
            return f"{len(self._outstanding)} PUBACKs of gateway {connection.gateway}"
        return None

    @property
    def awaited(self) -> list[Missing]:
        """The pushes and answers that have not come."""
        return [Missing(kind, sent_at) for (kind, _), sent_at in self._awaited.items()]

    async def run(self) -> None:
        """Live until cancelled."""
        while True:
            try:
                connection = await self._connect()
            except (OSError, TimeoutError):
                self._tally.refused += 1
            else:
                await self._stay(connection)
            self._connecting = "the time to come back"
            await asyncio.sleep(self._random.uniform(0, self._away_s))

    async def _connect(self) -> Connection:
        gateway = self._random.randrange(len(self._access.ports))
        former = self._connection
        connection, present = await self._open(gateway)
        self._tally.connects += 1
        self._tally.by_password += self._access.password is not None
        self._tally.by_certificate += self._access.certificate is not None
        self._connection = connection
        now = time.time()
        if not present:
            if self._subscribed and former is not None:
                self._tally.begun.append(Loss(self.token, now, self._seen_at, former.gateway, gateway))
                # What was on its way to the session is lost with it.
                self._awaited.clear()
            self._receiving.clear()
            self._subscribed = False
        elif self._subscribed:
            self._tally.resumed += 1
        if not self._subscribed:
            prefix = f"kp1/{APP_VERSION}/{EXTENSION}/{self.token}"
            filters = tuple((f"{prefix}/{path}/#", int(path[-1])) for path in PUSH_PATHS)
            connection.awaited[SUBSCRIBE_ID] = now
            connection.send(mqtt.Subscribe(SUBSCRIBE_ID, filters))
        self._seen_at = now
        for packet_id, number in self._outstanding.items():
            connection.awaited[packet_id] = now
            connection.send(self._publish(packet_id, number, again=True))
        task = asyncio.create_task(self._read(connection))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return connection

    async def _open(self, gateway: int) -> tuple[Connection, bool]:
        """Return a connection, and whether the gateway has the session. OSError if it has come to nothing."""
        began = time.time()
        self._connecting = f"a connection to gateway {gateway}"
        try:
            connection = await Connection.open(gateway, self._access, source_of(self._number))
        except TimeoutError:
            self._give_up("connection", gateway, began)
            raise
        self._connecting = f"CONNACK of gateway {gateway}"
        try:
            return connection, await connection.connect(self.token, self._access)
        except BaseException as error:
            if isinstance(error, TimeoutError):
                self._give_up("CONNACK", gateway, began)
            connection.abort()
            raise

    def _give_up(self, awaited: str, gateway: int, since: float) -> None:
        self._tally.unanswered.append(Unanswered(self.token, awaited, gateway, since, time.time()))

    def _is_late(self, connection: Connection) -> bool:
        """Return whether a packet has no answer although its time is over, and count it."""
        packet_id, since = next(iter(connection.awaited.items()), (0, time.time()))
        late = time.time() - since > ANSWER_S
        if late:
            self._give_up("SUBACK" if packet_id == SUBSCRIBE_ID else "PUBACK", connection.gateway, since)
        return late

    async def _stay(self, connection: Connection) -> None:
        """Send messages until the connection ends or is left; a connection that takes over follows it.

        A gateway that does not answer in time is left.
        """
        loop = asyncio.get_running_loop()
        while True:
            move = loop.time() + STAY_S + self._random.expovariate(1 / self._roam_s)
            while not connection.ended.is_set() and (self.paused or loop.time() < move):
                wait = (
                    LOOK_S if self.paused else min(self._random.expovariate(1 / self._send_s), self._roam_s)
                )
                try:
                    await asyncio.wait_for(connection.ended.wait(), wait)
                except TimeoutError:
                    if self._is_late(connection):
                        connection.abort()
                        return
                    if not self.paused and self._subscribed and len(self._outstanding) < OUTSTANDING_MAX:
                        self._send(connection)
            if connection.ended.is_set():
                self._tally.cut += 1
                return
            act = self._random.random()
            if act < 0.5:
                following = await self._take_over(connection)
                if following is None:
                    return
                connection = following
            elif act < 0.75:
                self._tally.aborted += 1
                connection.abort()
                return
            else:
                self._tally.left += 1
                connection.send(mqtt.Disconnect())
                connection.close()
                return

    def _send(self, connection: Connection) -> None:
        self._last += 1
        packet_id = self._last % PACKET_IDS + 1
        self._outstanding[packet_id] = self._last
        self._tally.sent += 1
        now = connection.awaited[packet_id] = time.time()
        self._awaited[PUSH, self._last] = self._awaited[ANSWER, self._last] = now
        connection.send(self._publish(packet_id, self._last))
        connection.ping()

    def _publish(self, packet_id: int, number: int, *, again: bool = False) -> mqtt.Publish:
        topic = f"kp1/{APP_VERSION}/{EXTENSION}/{self.token}/json/{number}"
        return mqtt.Publish(topic, b"%d" % number, 1, packet_id, again)

    async def _take_over(self, old: Connection) -> Connection | None:
        """Connect while the old connection is open, and watch that it ends within a round trip.

        A message is under way, so that its answer and its push come while the session moves.
        """
        if self._subscribed and len(self._outstanding) < OUTSTANDING_MAX:
            self._send(old)
        begun = len(self._tally.begun)
        try:
            new = await self._connect()
        except (OSError, TimeoutError):
            self._tally.refused += 1
            old.abort()
            return None
        at = time.time()
        self._tally.taken_over += 1
        new.ping()
        answering = asyncio.ensure_future(new.answered.wait())
        ending = asyncio.ensure_future(new.ended.wait())
        await asyncio.wait({answering, ending}, timeout=WATCHED_S, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        ending.cancel()
        round_trip = time.time() - at
        if old.is_open and new.answered.is_set():
            await asyncio.wait({asyncio.ensure_future(old.ended.wait())}, timeout=WATCHED_S)
            self._tally.overlaps.append(
                Overlap(at, time.time() - at, round_trip, old.ended.is_set(), len(self._tally.begun) == begun)
            )
        old.abort()
        return new

    async def _read(self, connection: Connection) -> None:
        try:
            while True:
                packet = await connection.receive()
                # What an old connection still brings was sent again to the new one.
                if connection is self._connection:
                    self._handle(connection, packet)
        except OSError:
            connection.ended.set()

    def _handle(self, connection: Connection, packet: mqtt.Packet) -> None:
        if isinstance(packet, mqtt.Publish):
            self._handle_push(connection, packet)
        elif isinstance(packet, mqtt.Puback):
            connection.awaited.pop(packet.packet_id, None)
            number = self._outstanding.pop(packet.packet_id, None)
            if number is not None:
                self.acknowledged.append(number)
                self._tally.acknowledged += 1
        elif isinstance(packet, mqtt.Pubrel):
            self._receiving.discard(packet.packet_id)
            connection.send(mqtt.Pubcomp(packet.packet_id))
        elif isinstance(packet, mqtt.Suback):
            connection.awaited.pop(packet.packet_id, None)
            self._subscribed = True
        elif isinstance(packet, mqtt.Pingresp):
            self._settled.update(connection.in_doubt)
            connection.in_doubt = []
            connection.pinging = False
            connection.answered.set()

    def _handle_push(self, connection: Connection, packet: mqtt.Publish) -> None:
        number = int(packet.payload)
        if "/json/" in packet.topic:
            self._handle_answer(connection, packet, number)
            return
        self._awaited.pop((PUSH, number), None)
        if packet.qos == 1:
            if number in self._settled:
                self._tally.after_acknowledgement.append(time.time())
            elif packet.dup:
                self._tally.repeated += 1
            else:
                self._tally.pushed += 1
            connection.send(mqtt.Puback(packet.packet_id))
            connection.acknowledged.append(number)
            return
        if packet.packet_id not in self._receiving:
            self._receiving.add(packet.packet_id)
            if number in self._exactly_once:
                self._tally.twice.append(time.time())
            else:
                self._exactly_once.add(number)
                self._tally.pushed += 1
        connection.send(mqtt.Pubrec(packet.packet_id))

    def _handle_answer(self, connection: Connection, packet: mqtt.Publish, number: int) -> None:
        # A message that was sent again has two answers.
        if self._awaited.pop((ANSWER, number), None) is not None:
            self._tally.answered += 1
        if packet.qos:
            connection.send(mqtt.Puback(packet.packet_id))
