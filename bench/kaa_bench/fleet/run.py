"""Runs a fleet soak: starts cluster and clients, causes faults in random order, and checks what was promised."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec
import nats
import nats.errors
import nats.js.errors
from kaa_ext.sdk.presence import Presence

from kaa_bench.errors import BenchError
from kaa_bench.fleet.clients import START_S, Settings
from kaa_bench.fleet.cluster import FleetCluster
from kaa_bench.fleet.credentials import Credentials
from kaa_bench.fleet.faults import FAULTS, nats_server_killed
from kaa_bench.fleet.ledger import Ledger
from kaa_bench.fleet.names import INSTANCE, replica_of
from kaa_bench.fleet.tally import Loss, Missing, Overlap, Tally, Unanswered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats.aio.client import Client as NatsClient

AWAY_S = 3.0
"""A client that has lost its connection comes back after this time at the latest ..."""
RETURNS_PER_S = 1000
"""... or later, so that not more come back in a second if all gateways are lost."""
SETTLE_S = 180.0
"""How long clients may take to come to rest, and what was acknowledged to be delivered."""
PRESENCE_S = 90.0
"""How long presence may take to show what is so."""
POLL_S = 1.0
NATS_MARGIN_S = 15.0
"""After a NATS server has come back, two connections of a client may still be found and ended."""
NATS_LEAD_S = 30.0
"""A message that was sent so long before a NATS server is killed may be answered while it is away."""
AWAITED_S = 60.0
"""How long the last pushes and answers may take at the end."""
LINE_SIZE = 1 << 26
"""Bytes of a line of a process of clients."""
READ_S = 2.0
"""How long a client may take to read CONNACK: its process has many."""
SHOWN_WRONG = 3
SHOWN_RESTLESS = 10
FAULTS_A_CHECK = 3
"""Faults between two looks at presence."""


class Result(msgspec.Struct):
    """What a run has shown."""

    tally: Tally
    lost: int
    """Messages that were acknowledged and did not arrive."""
    recorded: int
    """Messages that arrived, each of which was answered with a push."""
    began: float
    """Unix time."""
    excused_overlaps: list[Overlap]
    """Old connections that stayed while the NATS servers were not all there."""
    excused_pushes: int
    """Pushes that came again at that time: the extension sends again what NATS has not confirmed."""
    excused_losses: int
    """Sessions that were lost with a worker that was killed, or while the NATS servers were not all there."""
    excused_unanswered: int
    """Connections and packets that waited too long while the NATS servers were not all there."""
    excused_missing: int
    """Pushes and answers that did not come, whose messages were sent around that time."""
    faults: dict[str, int]
    presence_checks: int
    presence_faults: list[str]
    presence_waits: list[float]
    """Seconds until presence was right."""
    seconds: float

    def violations(self) -> int:
        """Return how often a promise was broken."""
        tally = self.tally
        return (
            self.lost
            + len(tally.twice)
            + len(tally.after_acknowledgement)
            + len(tally.overlaps)
            + len(tally.begun)
            + len(tally.missing)
            + len(tally.unanswered)
            + len(self.presence_faults)
        )


class FleetRun:
    """A run with `clients` clients in `processes` processes. `say` gets a line for each event."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        clients: int,
        processes: int,
        send_s: float,
        roam_s: float,
        pause_s: float,
        seed: int,
        logs: Path | None = None,
    ) -> None:
        self._say = say
        self._count = clients
        self._process_count = processes
        self._send_s = send_s
        self._roam_s = roam_s
        self._pause_s = pause_s
        self._seed = seed
        self._logs = logs
        self._random = random.Random(seed)
        self._processes: list[asyncio.subprocess.Process] = []
        self._faults: dict[str, int] = {}
        self._nats_away: list[tuple[float, float]] = []
        self._killed: list[tuple[float, int]] = []
        """When workers were killed, as Unix time, and of which gateway."""
        self._presence_waits: list[float] = []
        self._presence_faults: list[str] = []

    async def run(self, seconds: float) -> Result:
        """Cause faults until the time is over, each at least once."""
        async with AsyncExitStack() as stack:
            servers = stack.enter_context(ExitStack())
            self._say("starting three NATS servers, three gateways with two workers each, and an extension")
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="kaa-fleet-")))
            credentials = directory / "credentials"
            credentials.mkdir()
            await asyncio.to_thread(Credentials(credentials).issue, self._count)
            cluster = await asyncio.to_thread(
                partial(FleetCluster, servers, Credentials(credentials), self._logs)
            )
            client = await nats.connect(cluster.urls, max_reconnect_attempts=-1, error_cb=_silent)
            stack.push_async_callback(client.close)
            await stack.enter_async_context(self._clients(cluster, directory))
            began, wall_began = time.monotonic(), time.time()
            self._say(f"{self._count} clients in {self._process_count} processes")
            await self._rest(client)
            await self._tell("go on")
            await self._break(cluster, client, time.monotonic() + seconds)
            await self._rest(client)
            await self._all_delivered()
            elapsed = time.monotonic() - began
            tallies = [msgspec.json.decode(line, type=Tally) for line in await self._tell("end")]
            lost, recorded = await self._missing(cluster, directory)
        self._killed = [(at, gateway.number) for gateway in cluster.gateways for at in gateway.killed_at]
        tally = _sum(tallies)
        seen = _sum(tallies)
        tally.overlaps = [each for each in seen.overlaps if not self._was_nats_away(each.at)]
        tally.twice = [at for at in seen.twice if not self._was_nats_away(at)]
        tally.after_acknowledgement = [at for at in seen.after_acknowledgement if not self._was_nats_away(at)]
        tally.begun = [each for each in seen.begun if not self._is_excused_loss(each)]
        tally.missing = [each for each in seen.missing if not self._is_excused_missing(each)]
        tally.unanswered = [each for each in seen.unanswered if not self._is_excused_unanswered(each)]
        return Result(
            tally,
            lost,
            recorded,
            wall_began,
            [each for each in seen.overlaps if self._was_nats_away(each.at)],
            len(seen.twice)
            + len(seen.after_acknowledgement)
            - len(tally.twice)
            - len(tally.after_acknowledgement),
            len(seen.begun) - len(tally.begun),
            len(seen.unanswered) - len(tally.unanswered),
            len(seen.missing) - len(tally.missing),
            self._faults,
            len(self._presence_waits) + len(self._presence_faults),
            self._presence_faults,
            self._presence_waits,
            elapsed,
        )

    @asynccontextmanager
    async def _clients(self, cluster: FleetCluster, directory: Path) -> AsyncIterator[None]:
        """Start the processes of the clients, and end them."""
        each = -(-self._count // self._process_count)
        try:
            for index in range(self._process_count):
                first = index * each
                settings = Settings(
                    first,
                    min(each, self._count - first),
                    cluster.ports,
                    cluster.tls_ports,
                    str(directory / "credentials"),
                    self._send_s,
                    self._roam_s,
                    max(AWAY_S, self._count / RETURNS_PER_S),
                    self._seed,
                    str(directory / f"acknowledged-{index}"),
                )
                self._processes.append(
                    await asyncio.create_subprocess_exec(
                        *(sys.executable, "-P", "-m", "kaa_bench.fleet.clients"),
                        msgspec.json.encode(settings).decode(),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        limit=LINE_SIZE,
                    )
                )
            await asyncio.sleep(each * START_S)
            yield
        finally:
            for process in self._processes:
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    async def _tell(self, command: str) -> list[bytes]:
        """Send all processes of clients a command, and return their answers."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{command}\n".encode())
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            answer = await process.stdout.readline()
            if not answer:
                raise BenchError("a process of clients has ended")
            answers.append(answer)
        return answers

    async def _break(self, cluster: FleetCluster, client: NatsClient, end: float) -> None:
        while time.monotonic() < end or len(self._faults) < len(FAULTS):
            for number, fault in enumerate(self._random.sample(FAULTS, len(FAULTS))):
                await asyncio.sleep(self._random.uniform(0.5, 1.5) * self._pause_s)
                name = fault.__name__
                self._say(name.replace("_", " "))
                began = time.time()
                await fault(cluster, client, self._random)
                if fault is nats_server_killed:
                    self._nats_away.append((began, time.time() + NATS_MARGIN_S))
                self._faults[name] = self._faults.get(name, 0) + 1
                if number % FAULTS_A_CHECK == FAULTS_A_CHECK - 1:
                    await self._rest(client)
                    await self._tell("go on")

    async def _rest(self, client: NatsClient) -> None:
        """Have the clients rest, and wait until presence shows where they are."""
        await self._tell("pause")
        deadline = time.monotonic() + SETTLE_S
        while (restless := await self._restless()) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        if restless:
            raise BenchError(_shown_restless(restless))
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            presence = await self._presence(client, stack)
            while True:
                found = await self._where()
                wrong = [token for token, gateway in found.items() if not _is_right(presence, token, gateway)]
                wrong += [each for each in presence.endpoint_ids() if each not in found]
                waited = time.monotonic() - began
                if not wrong and len(found) == self._count:
                    self._presence_waits.append(waited)
                    self._say(f"presence is right for {len(found)} clients after {waited:.1f} s")
                    return
                if waited > PRESENCE_S:
                    self._presence_faults += wrong
                    self._say(f"presence is wrong for {len(wrong)} clients")
                    for token in wrong[:SHOWN_WRONG]:
                        replicas = [entry.replica for entry in presence.get(token)]
                        self._say(f"{token} is at gateway {found.get(token)}, presence shows {replicas}")
                    return
                await asyncio.sleep(POLL_S)

    async def _where(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for answer in await self._tell("where"):
            found |= msgspec.json.decode(answer, type=dict[str, int])
        return found

    async def _restless(self) -> dict[str, str]:
        """Return what each client waits for that is not at rest."""
        restless: dict[str, str] = {}
        for answer in await self._tell("unrest"):
            restless |= msgspec.json.decode(answer, type=dict[str, str])
        return restless

    async def _missing(self, cluster: FleetCluster, directory: Path) -> tuple[int, int]:
        """Return how many acknowledged messages the extension has not got, and how many it has."""
        acknowledged = Ledger()
        for file in directory.glob("acknowledged-*"):
            acknowledged.read(await asyncio.to_thread(file.read_bytes))
        deadline = time.monotonic() + SETTLE_S
        while True:
            recorded = Ledger()
            if cluster.extension.record.exists():
                recorded.read(await asyncio.to_thread(cluster.extension.record.read_bytes))
            lost = acknowledged.without(recorded)
            if not lost or time.monotonic() > deadline:
                return lost, len(recorded)
            await asyncio.sleep(POLL_S)

    async def _presence(self, client: NatsClient, stack: AsyncExitStack) -> Presence:
        """Watch the presence bucket, whose servers may be choosing a leader."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            try:
                return await stack.enter_async_context(Presence(client, INSTANCE))
            except (nats.errors.Error, nats.js.errors.Error):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_S)

    async def _all_delivered(self) -> None:
        """Wait for the last pushes and answers; what has not come after a while is missing."""
        deadline = time.monotonic() + AWAITED_S
        while time.monotonic() < deadline:
            if not sum(msgspec.json.decode(answer, type=int) for answer in await self._tell("awaited")):
                return
            await asyncio.sleep(POLL_S)

    def _is_excused_loss(self, loss: Loss) -> bool:
        """Return whether a session may have been lost: a worker was killed, or a NATS server was away.

        The worker may have died before its client read CONNACK.
        """
        return self._was_nats_away(loss.at) or any(
            loss.since - READ_S * (gateway == loss.gateway) <= at <= loss.at for at, gateway in self._killed
        )

    def _is_excused_missing(self, missing: Missing) -> bool:
        return any(began - NATS_LEAD_S <= missing.sent_at <= ended for began, ended in self._nats_away)

    def _is_excused_unanswered(self, unanswered: Unanswered) -> bool:
        """Return whether NATS servers were away while the gateway was waited for."""
        return any(began <= unanswered.at and unanswered.since <= ended for began, ended in self._nats_away)

    def _was_nats_away(self, at: float) -> bool:
        return any(began <= at <= ended for began, ended in self._nats_away)


async def _silent(error: Exception) -> None:
    """Ignore an error of the connection: faults are the run's purpose."""


def _is_right(presence: Presence, token: str, gateway: int) -> bool:
    entries = presence.get(token)
    return len(entries) == 1 and entries[0].replica.rpartition("-")[0] == replica_of(gateway)


def _shown_restless(restless: dict[str, str]) -> str:
    """Say which clients have not come to rest, and what they wait for."""
    shown = [f"{token} waits for {awaited}" for token, awaited in islice(restless.items(), SHOWN_RESTLESS)]
    if len(restless) > len(shown):
        shown.append(f"and {len(restless) - len(shown)} more")
    return f"{len(restless)} clients have not come to rest in {SETTLE_S:g} s: {'; '.join(shown)}"


def _sum(tallies: list[Tally]) -> Tally:
    """Return the sums of counts, and all overlaps."""
    total = Tally()
    for tally in tallies:
        for name in Tally.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    return total
