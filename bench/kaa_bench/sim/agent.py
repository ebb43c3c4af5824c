"""`kaa-sim agent`: waits on NATS for a part of a run, simulates its devices, and reports."""

import asyncio
import socket
import time
from contextlib import suppress
from uuid import uuid4

import msgspec
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from kaa_bench.errors import BenchError
from kaa_bench.sim import agent_messages as messages
from kaa_bench.sim import scenario as scenarios
from kaa_bench.sim.identities import check_files
from kaa_bench.sim.process import LocalProcesses
from kaa_bench.sim.scenario import Scenario

CONNECT_TIMEOUT_S = 5
RECONNECT_WAIT_S = 1
POLL_S = 0.2

log = structlog.get_logger("kaa-sim")


class Agent:
    """An agent of a group, which simulates parts of runs with `processes` processes, one run at a time."""

    def __init__(self, client: Client, group: str, processes: int) -> None:
        self._client = client
        self._group = group
        self._processes = processes
        self._id = uuid4().hex
        self._running: asyncio.Task[None] | None = None
        self._heard = 0.0

    async def start(self) -> None:
        """Take offers and parts of runs from now on."""
        await self._client.subscribe(messages.subject(self._group, "offer"), cb=self._on_offer)
        await self._client.subscribe(messages.subject(self._group, "agent", self._id), cb=self._on_part)
        await self._client.flush()

    async def stop(self) -> None:
        """End the run in progress."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    @property
    def _is_free(self) -> bool:
        return self._running is None or self._running.done()

    async def _on_offer(self, message: Msg) -> None:
        if self._is_free:
            ready = messages.Ready(self._id, socket.gethostname(), self._processes)
            await message.respond(msgspec.json.encode(ready))

    async def _on_part(self, message: Msg) -> None:
        begin = time.time()
        try:
            if not self._is_free:
                raise BenchError("it has a part of another run")
            part = msgspec.json.decode(message.data, type=messages.Part)
            scenario = scenarios.parse(part.scenario, "scenario").at(part.host, part.ports)
            check_files(scenario)
        except (BenchError, msgspec.MsgspecError) as error:
            await message.respond(str(error).encode())
            return
        self._running = asyncio.create_task(self._run(part, scenario, begin + part.begin_in))
        await message.respond(b"")

    async def _run(self, part: messages.Part, scenario: Scenario, begin: float) -> None:
        """Simulate a part of a run, until it is done or the controller stops it or has gone."""
        log.info("begins", run=part.run, scenario=scenario.name, devices=scenario.devices)
        reports_to = messages.subject(self._group, "run", part.run, "report")
        processes = LocalProcesses(scenario, begin, self._processes, first=part.first, total=part.total)
        stopped = asyncio.Event()
        self._heard = time.monotonic()

        async def control(message: Msg) -> None:
            self._heard = time.monotonic()
            if message.data == messages.STOP:
                stopped.set()

        subscription = await self._client.subscribe(
            messages.subject(self._group, "run", part.run, "control"), cb=control
        )
        try:
            with processes:
                missing = self._processes
                while missing:
                    found = await asyncio.to_thread(processes.receive, POLL_S)
                    missing -= sum(report.final for report in found.values())
                    if found:
                        await self._client.publish(reports_to, messages.packed(self._id, found))
                    if time.monotonic() - self._heard > messages.SILENCE_MAX_S:
                        log.warning("the controller has gone", run=part.run)
                        stopped.set()
                    if stopped.is_set():
                        processes.stop()
        except BenchError as error:
            log.error("has failed", run=part.run, error=str(error))
            await self._client.publish(reports_to, messages.packed(self._id, {}, str(error)))
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
        log.info("ends", run=part.run)


async def connected(url: str) -> Client:
    """Return a client of NATS, which connects again whenever it must. Raise BenchError if it cannot connect now."""
    await (await _connect(url, again=False)).close()
    return await _connect(url, again=True)


async def _connect(url: str, *, again: bool) -> Client:
    async def silent(error: Exception) -> None:
        """Say nothing: the failed call raises the error."""

    try:
        return await nats.connect(
            url.split(","),
            name="kaa-sim",
            connect_timeout=CONNECT_TIMEOUT_S,
            allow_reconnect=again,
            max_reconnect_attempts=-1 if again else 1,
            reconnect_time_wait=RECONNECT_WAIT_S if again else 0,
            error_cb=silent,
        )
    except (nats.errors.Error, OSError) as error:
        raise BenchError(f"NATS at {url}: {error or type(error).__name__}") from None


async def serve(url: str, group: str, processes: int) -> None:
    """Serve until cancelled."""
    client = await connected(url)
    agent = Agent(client, group, processes)
    try:
        await agent.start()
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        await agent.stop()
        await client.close()
