"""Runs the devices of a scenario in child processes: each has a share of every fleet, and reports every second."""

import asyncio
import contextlib
import gc
import multiprocessing
import random
import resource
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Self

import uvloop

from kaa_bench.connecting import FILES_BESIDE_SOCKETS
from kaa_bench.errors import BenchError
from kaa_bench.load.histogram import Histogram
from kaa_bench.sim.device import Device
from kaa_bench.sim.downlink import push
from kaa_bench.sim.identities import Identities
from kaa_bench.sim.scenario import Scenario
from kaa_bench.sim.tally import Tally

REPORT_PERIOD_S = 1.0
START_S = 0.5
"""Seconds between the start of the processes and the first device, so that all begin together."""
STOP_TIMEOUT_S = 10.0
ARRIVAL_S = 1.0
"""Seconds after the last push for it to arrive."""


@dataclass
class Report:
    """The counts of a process since its start, by fleet. `recent` has the latencies since the last report."""

    tallies: dict[str, Tally]
    recent: dict[str, Histogram]
    cpu_seconds: float
    final: bool = False


class SimulatorProcess:
    """A share of the devices: every `processes`-th, from `index` on."""

    def __init__(self, scenario: Scenario, index: int, processes: int, begin: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(theirs, scenario, index, processes, begin), daemon=True
        )
        self._process.start()
        theirs.close()

    def receive(self) -> Report:
        """Return the next report. Raise BenchError if the process has failed."""
        try:
            report = self.pipe.recv()
        except EOFError:
            raise BenchError(f"a simulator process ended with {self._process.exitcode}") from None
        if isinstance(report, BenchError):
            raise report
        assert isinstance(report, Report)
        return report

    def stop(self) -> None:
        """Ask the process to finish early. Its last report is then marked as final."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)

    def close(self) -> None:
        """Stop the process."""
        self.pipe.close()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LocalProcesses:
    """Some of the processes of a run, on this machine: `count` from `first` on, of `total`."""

    def __init__(
        self, scenario: Scenario, begin: float, count: int, *, first: int = 0, total: int | None = None
    ) -> None:
        self.count = count
        self._scenario = scenario
        self._begin = begin
        self._first = first
        self._total = count if total is None else total
        self._stack = contextlib.ExitStack()
        self._running: dict[int, SimulatorProcess] = {}

    def __enter__(self) -> Self:
        for index in range(self._first, self._first + self.count):
            process = SimulatorProcess(self._scenario, index, self._total, self._begin)
            self._running[index] = self._stack.enter_context(process)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def receive(self, timeout_s: float) -> dict[int, Report]:
        """Return the new reports by the index of the process; none if there is none in time."""
        by_pipe = {process.pipe: index for index, process in self._running.items()}
        reports = {}
        for pipe in wait(list(by_pipe), timeout_s):
            index = by_pipe[pipe]  # type: ignore[index]
            reports[index] = self._running[index].receive()
            if reports[index].final:
                del self._running[index]
        return reports

    def stop(self) -> None:
        """Ask the processes to finish early."""
        for process in self._running.values():
            process.stop()


def raise_file_limit(sockets: int) -> None:
    """Raise the limit of open files for `count` sockets. Raise BenchError if the hard limit is too low."""
    wanted = sockets + FILES_BESIDE_SOCKETS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise BenchError(
                f"{sockets} devices in a process need `ulimit -n {wanted}`; the hard limit is {hard}"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run(pipe: Connection, scenario: Scenario, index: int, processes: int, begin: float) -> None:
    # Ctrl-C reaches the whole process group; the parent then ends the run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        raise_file_limit(-(-scenario.devices // processes))
        uvloop.run(_simulate(pipe, scenario, index, processes, begin))
    except BenchError as error:
        pipe.send(error)
    except (BrokenPipeError, EOFError):
        pass


async def _simulate(
    pipe: Connection,
    scenario: Scenario,
    index: int,
    processes: int,
    begin: float,
) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time() + max(0.0, begin - time.time())
    tallies = {fleet.name: Tally() for fleet in scenario.fleets}
    devices: list[Device] = []
    tasks, pushing = [], []
    for fleet in scenario.fleets:
        identities = Identities(fleet, scenario.target)
        first = len(devices)
        for number in range(index, fleet.devices, processes):
            chance = random.Random(f"{scenario.seed}/{fleet.name}/{number}")
            device = Device(fleet, scenario.target, number, tallies[fleet.name], chance, identities)
            at = start + scenario.ramp_up * number / fleet.devices
            devices.append(device)
            tasks.append(asyncio.create_task(device.run(start, at)))
        own = devices[first:]
        if fleet.downlink is not None and own:
            share = len(own) / fleet.devices
            pushing.append(asyncio.create_task(push(fleet, fleet.downlink, own, share)))
    # Thousands of devices live to the end; the garbage collector need not examine them again.
    gc.freeze()
    before: dict[str, Histogram] = {}
    end = start + scenario.duration
    # add_reader would make the pipe non-blocking, but a report may be longer than the pipe's buffer.
    while loop.time() < end and not pipe.poll() and not any(task.done() for task in pushing):
        await asyncio.sleep(min(REPORT_PERIOD_S, max(0.0, end - loop.time())))
        pipe.send(_snapshot(tallies, before))
    for task in pushing:
        task.cancel()
    for outcome in await asyncio.gather(*pushing, return_exceptions=True):
        if isinstance(outcome, BenchError):
            raise outcome
    # What was pushed last arrives meanwhile.
    await asyncio.sleep(ARRIVAL_S if pushing else 0)
    for device, task in zip(devices, tasks, strict=True):
        device.stopping = True
        task.cancel()
    while True:
        _, unfinished = await asyncio.wait(tasks, timeout=REPORT_PERIOD_S)
        if not unfinished:
            break
        pipe.send(_snapshot(tallies, before))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise BenchError(f"a device failed: {failed[0]!r}")
    pipe.send(_snapshot(tallies, before, final=True))


def _snapshot(tallies: dict[str, Tally], before: dict[str, Histogram], *, final: bool = False) -> Report:
    """Return the current report. `before` has the latencies at the last one, and is updated."""
    recent = {}
    for name, tally in tallies.items():
        now = tally.latency.copy()
        recent[name] = now.since(before[name]) if name in before else now
        before[name] = now
    return Report(tallies, recent, time.process_time(), final)
