"""A simulated device: connects, sends its samples in time, reacts to pushes, disconnects and reconnects."""

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from kaa_bench.packets import MqttVersion
from kaa_bench.sim.identities import Identities, Identity
from kaa_bench.sim.payloads import Recorded, Samples
from kaa_bench.sim.scenario import Fleet, Target, transport_field
from kaa_bench.sim.sessions import Session, SessionError
from kaa_bench.sim.sessions.coap import CoapSession
from kaa_bench.sim.sessions.http import HttpSession
from kaa_bench.sim.sessions.kpudp import KpudpSession
from kaa_bench.sim.sessions.mqtt import MqttSession
from kaa_bench.sim.stages import rate_at
from kaa_bench.sim.tally import LATE_S, Tally

RECONNECT_FIRST_S = 0.5
RECONNECT_MAX_S = 30.0
AWAY_S = 1.0
"""The average time that a device is away when it has left."""
OUTSTANDING_MAX = 64
"""Unacknowledged messages of a device; further ones that are due count as a kind of error."""


class Device:
    """A device of a fleet. It has its own `chance`, so that every run is the same."""

    def __init__(
        self,
        fleet: Fleet,
        target: Target,
        number: int,
        tally: Tally,
        chance: random.Random,
        identities: Identities,
    ) -> None:
        self._fleet = fleet
        self._tally = tally
        self._chance = chance
        identity = identities.of(number)
        token = identity.token
        self._root = f"kp1/{fleet.application_version}"
        self._token = token
        downlink = fleet.downlink
        self.endpoint_id = token
        if downlink is not None and downlink.endpoint is not None:
            self.endpoint_id = downlink.endpoint.replace("{device}", str(number))
        self._path = f"{self._root}/{fleet.extension}/{token}/{fleet.path}"
        self._samples: Samples | Recorded = (
            Recorded(fleet.payload_files, number)
            if fleet.payload_files
            else Samples(fleet.payload, fleet.batch, fleet.interval, chance)
        )
        tls, source = identities.tls(number), identities.source(number)
        self._session = make_session(fleet, target, identity, self._pushed, tls, source)
        self._connected = self._reached = False
        self._start_of_run = 0.0
        self.stopping = False
        """Set before the task is cancelled: a client may take the cancellation for its own."""
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self, start_of_run: float, begin: float) -> None:
        """Run from the loop's time `begin` until cancelled."""
        self._start_of_run = start_of_run
        loop = asyncio.get_running_loop()
        # The first message is at a random time in the first interval, so that a fleet does not send all at once.
        due = begin + self._chance.random() * self._interval(begin)
        leave = self._leaving(begin)
        await asyncio.sleep(begin - loop.time())
        try:
            await self._connect()
            while not self.stopping:
                await asyncio.sleep(due - loop.time())
                self._tally.late += loop.time() - due > LATE_S
                if leave is not None and loop.time() >= leave:
                    await self._leave()
                    # It was away on purpose, so no message was due.
                    due = loop.time()
                    leave = self._leaving(due)
                elif not self._connected:
                    await self._connect()
                self._begin_sending(due)
                shift = self._chance.uniform(-self._fleet.jitter, self._fleet.jitter)
                due += self._interval(due) * (1 + shift)
        finally:
            await self._finish()

    @property
    def is_connected(self) -> bool:
        """Return whether the device is connected, and has subscribed to what it wants to hear."""
        return self._connected

    def count_push(self) -> None:
        """Count a push that is sent to the device."""
        self._tally.downlink_sent += 1

    def _interval(self, at: float) -> float:
        """Return the seconds between two messages at a time."""
        fleet = self._fleet
        return (
            fleet.interval / rate_at(fleet.stages, at - self._start_of_run)
            if fleet.stages
            else fleet.interval
        )

    def _leaving(self, now: float) -> float | None:
        churn = self._fleet.churn
        return None if churn is None else now + self._chance.expovariate(1 / churn)

    # ---------------------------------------------------------------- connecting

    async def _connect(self) -> None:
        """Connect, however many attempts that takes."""
        wait = RECONNECT_FIRST_S
        while not self.stopping:
            try:
                await self._session.connect()
                await self._listen()
            except SessionError as error:
                self._tally.errors[error.kind] += 1
                await self._session.close()
                await asyncio.sleep(wait * (0.5 + self._chance.random()))
                wait = min(RECONNECT_MAX_S, wait * 2)
            else:
                self._connected = True
                self._tally.reached += not self._reached
                self._reached = True
                self._tally.connected += 1
                self._tally.connects += 1
                return

    async def _listen(self) -> None:
        fleet = self._fleet
        extensions = []
        if fleet.configuration is not None:
            extensions.append((fleet.configuration, "config/json"))
        if fleet.commands is not None:
            extensions += [(fleet.commands.extension, f"command/{kind}") for kind in fleet.commands.types]
        if fleet.downlink is not None:
            extensions.append((fleet.extension, fleet.downlink.path))
        for extension, path in extensions:
            root = f"{self._root}/{extension}/{self._token}"
            await self._session.listen(root if fleet.protocol == "kpudp" else f"{root}/{path}")

    async def _leave(self) -> None:
        """Disconnect when all messages are answered, and reconnect later."""
        if self._sending:
            await asyncio.wait(self._sending)
        await self._part()
        await asyncio.sleep(self._chance.expovariate(1 / AWAY_S))
        await self._connect()

    async def _part(self) -> None:
        if self._connected:
            self._connected = False
            self._tally.connected -= 1
        await self._session.close()

    async def _finish(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending)
        await self._part()

    # ---------------------------------------------------------------- sending

    def _begin_sending(self, due: float) -> None:
        self._tally.sent += 1
        if len(self._sending) >= OUTSTANDING_MAX:
            self._tally.errors["too many unanswered"] += 1
            return
        self._start(self._send(self._path, self._samples.message(), due))

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, path: str, payload: bytes, due: float) -> None:
        try:
            await self._session.send(path, payload)
        except SessionError as error:
            self._tally.errors[error.kind] += 1
            if error.kind == "connection lost" and self._connected:
                await self._part()
        else:
            # uvloop's clock, which `due` is of, shows whole milliseconds of the same time.
            self._tally.done(due, time.monotonic())

    # ---------------------------------------------------------------- reacting

    def _pushed(self, path: str, payload: bytes) -> None:
        """Handle a push: a configuration, a command, or anything else."""
        self._tally.pushes += 1
        fleet = self._fleet
        rest = path.removeprefix(self._root).split("/")
        with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
            match rest:
                case ["", extension, _, "config", "json", *name] if extension == fleet.configuration:
                    self._apply(extension, name, msgspec.json.decode(payload))
                case ["", extension, _, "command", kind] if fleet.commands and (
                    extension == fleet.commands.extension and kind in fleet.commands.types
                ):
                    self._execute(extension, kind, msgspec.json.decode(payload))
                case ["", extension, _, *levels] if fleet.downlink and (
                    extension == fleet.extension and "/".join(levels) == fleet.downlink.path
                ):
                    latency_ns = time.monotonic_ns() - msgspec.json.decode(payload)["due_ns"]
                    self._tally.downlink_received += 1
                    self._tally.downlink_latency.record(latency_ns)

    def _apply(self, extension: str, name: list[str], pushed: Any) -> None:
        """Report that the configuration is applied (7/CMP)."""
        path = "/".join((self._root, extension, self._token, "applied", "json", *name))
        report = {"configId": pushed["configId"], "statusCode": 200, "reasonPhrase": "ok"}
        self._tally.applied += 1
        self._answer(path, report)

    def _execute(self, extension: str, kind: str, pushed: Any) -> None:
        """Execute each command, and report its result (11/CEP)."""
        path = f"{self._root}/{extension}/{self._token}/result/{kind}"
        results = [{"id": command["id"], "statusCode": 200, "payload": {"done": kind}} for command in pushed]
        self._tally.commands += len(results)
        self._answer(path, results)

    def _answer(self, path: str, document: object) -> None:
        self._tally.sent += 1
        due = asyncio.get_running_loop().time()
        self._start(self._send(path, msgspec.json.encode(document), due))


def make_session(
    fleet: Fleet,
    target: Target,
    identity: Identity,
    pushed: Any,
    tls: ssl.SSLContext | None,
    source: tuple[str, int] | None,
) -> Session:
    """Return the device's session, by protocol and kind of client."""
    host, timeout = target.host, fleet.timeout
    token = identity.token
    if fleet.clients == "independent":
        # Imported here because they are an extra.
        from kaa_bench.sim.sessions import independent
    native = fleet.clients == "native"
    match fleet.protocol:
        case "mqtt":
            version: MqttVersion = "3.1.1" if fleet.mqtt_version == "3.1.1" else "5"
            port: int = getattr(target, transport_field(fleet.transport))
            if not native:
                return independent.AiomqttSession(
                    host, port, token, qos=fleet.qos, timeout=timeout, tls=tls, version=version
                )
            return MqttSession(
                host,
                port,
                token,
                qos=fleet.qos,
                answers=fleet.answers,
                timeout=timeout,
                pushed=pushed,
                user=identity.user,
                password=identity.password,
                source=source,
                tls=tls,
                websocket=fleet.transport.startswith("websocket"),
                version=version,
            )
        case "http":
            if not native:
                return independent.AiohttpSession(host, target.http, timeout=timeout)
            port = target.https if tls else target.http
            return HttpSession(
                host,
                port,
                timeout=timeout,
                user=identity.user,
                password=identity.password,
                source=source,
                tls=tls,
            )
        case "coap":
            if not native:
                return independent.AiocoapSession(host, target.coap, timeout=timeout)
            return CoapSession(host, target.coap, timeout=timeout, source=source)
        case "kpudp":
            if identity.user is None or identity.password is None:
                return KpudpSession(host, target.kpudp, timeout=timeout, pushed=pushed, source=source)
            return KpudpSession(
                host,
                target.kpudp_secure,
                timeout=timeout,
                pushed=pushed,
                source=source,
                identity=(identity.user, identity.password),
            )
