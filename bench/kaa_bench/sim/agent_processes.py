"""The processes of a run on agents: finds agents on NATS, gives each its part, and receives their reports."""

import asyncio
import queue
import threading
import time
from typing import Self
from uuid import uuid4

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from kaa_bench.errors import BenchError
from kaa_bench.sim import agent_messages as messages
from kaa_bench.sim.agent import connected
from kaa_bench.sim.process import Report
from kaa_bench.sim.scenario import Scenario

OFFER_PERIOD_S = 0.5
ANSWER_TIMEOUT_S = 15.0
BEGIN_IN_S = 2.0
"""Seconds from the last part that is given to the first device, so that all agents begin together."""


class AgentProcesses:
    """The processes of `agents` agents of a group. `text` is the scenario, which they read again; files are theirs."""

    def __init__(
        self,
        url: str,
        group: str,
        agents: int,
        scenario: Scenario,
        text: str,
        target: tuple[str | None, dict[str, int]],
        wait_s: float,
    ) -> None:
        self._url = url
        self._group = group
        self._agents = agents
        self._scenario = scenario
        self._text = text
        self._target = target
        self._wait_s = wait_s
        self._run = uuid4().hex
        self._inbox: queue.Queue[bytes] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._client: Client | None = None
        self._chosen: list[messages.Ready] = []
        self._heard: dict[str, float] = {}
        self._missing: dict[str, set[int]] = {}
        self._greeting: asyncio.Task[None] | None = None
        self.count = 0
        self.begin = 0.0

    def find(self) -> None:
        """Connect, and find the agents. Raise BenchError if there are too few in time."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._find(), self._loop).result()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        try:
            asyncio.run_coroutine_threadsafe(self._give(), self._loop).result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if any(self._missing.values()):
            self.stop()
        self.close()

    @property
    def hosts(self) -> list[str]:
        """Return the names of the agents' machines."""
        return [each.host for each in self._chosen]

    def receive(self, timeout_s: float) -> dict[int, Report]:
        """Return the new reports. Raise BenchError if an agent has failed, or is silent."""
        reports: dict[int, Report] = {}
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            try:
                agent, found, error = messages.unpacked(self._inbox.get(timeout=left))
            except queue.Empty:
                break
            if agent not in self._missing:
                continue
            if error is not None:
                raise BenchError(f"the agent on {self._host_of(agent)} has failed: {error}")
            self._heard[agent] = time.monotonic()
            self._missing[agent] -= {index for index, report in found.items() if report.final}
            reports |= found
        for agent, missing in self._missing.items():
            if missing and time.monotonic() - self._heard[agent] > messages.SILENCE_MAX_S:
                raise BenchError(f"the agent on {self._host_of(agent)} has not reported for a while")
        return reports

    def stop(self) -> None:
        """Ask the agents to finish early."""
        asyncio.run_coroutine_threadsafe(self._control(messages.STOP), self._loop).result()

    def close(self) -> None:
        """Disconnect."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _host_of(self, agent: str) -> str:
        return next(each.host for each in self._chosen if each.agent == agent)

    async def _find(self) -> None:
        self._client = client = await connected(self._url)
        found: dict[str, messages.Ready] = {}

        async def on_ready(message: Msg) -> None:
            ready = msgspec.json.decode(message.data, type=messages.Ready)
            found[ready.agent] = ready

        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=on_ready)
        end = time.monotonic() + self._wait_s
        while len(found) < self._agents:
            if time.monotonic() > end:
                raise BenchError(
                    f"{len(found)} of {self._agents} agents of the group {self._group} are there and free; start "
                    f"others with `kaa-sim agent --nats {self._url}`"
                )
            await client.publish(messages.subject(self._group, "offer"), reply=inbox)
            await asyncio.sleep(OFFER_PERIOD_S)
        await subscription.unsubscribe()
        self._chosen = list(found.values())[: self._agents]
        self.count = sum(each.processes for each in self._chosen)
        if self.count > self._scenario.devices:
            raise BenchError(f"{self.count} processes of the agents for {self._scenario.devices} devices")

    async def _give(self) -> None:
        """Give each agent its part, and begin to greet them."""
        assert self._client is not None
        await self._client.subscribe(
            messages.subject(self._group, "run", self._run, "report"), cb=self._on_report
        )
        self.begin = time.time() + BEGIN_IN_S
        host, ports = self._target
        first = 0
        for each in self._chosen:
            begin_in = self.begin - time.time()
            part = messages.Part(self._run, self._text, host, ports, first, self.count, begin_in)
            subject = messages.subject(self._group, "agent", each.agent)
            try:
                answer = await self._client.request(subject, msgspec.json.encode(part), ANSWER_TIMEOUT_S)
            except nats.errors.Error as error:
                reason = str(error) or type(error).__name__
                raise BenchError(f"the agent on {each.host} does not answer: {reason}") from None
            if answer.data:
                raise BenchError(f"the agent on {each.host} cannot do its part: {answer.data.decode()}")
            self._missing[each.agent] = set(range(first, first + each.processes))
            self._heard[each.agent] = time.monotonic()
            first += each.processes
        self._greeting = asyncio.create_task(self._greet())

    async def _on_report(self, message: Msg) -> None:
        self._inbox.put(message.data)

    async def _greet(self) -> None:
        while True:
            await self._control(messages.ALIVE)
            await asyncio.sleep(messages.ALIVE_PERIOD_S)

    async def _control(self, what: bytes) -> None:
        if self._client is not None:
            await self._client.publish(messages.subject(self._group, "run", self._run, "control"), what)
            await self._client.flush()

    async def _end(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
        if self._client is not None:
            await self._client.close()
