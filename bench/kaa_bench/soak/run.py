"""Runs a soak: starts devices, causes faults in a random order, and checks the histories of all messages at the end."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

from kaa_gateway.tasks import end_tasks

from kaa_bench.errors import BenchError
from kaa_bench.processes import HOST
from kaa_bench.soak.account import Account, account
from kaa_bench.soak.checker import PROPERTIES, Disturbance, Disturbances, Finding, Promises, check, lost
from kaa_bench.soak.cluster import (
    APP_VERSION,
    APPLICATION,
    CORE,
    DURABLE,
    GATEWAY_INSTANCE,
    Cluster,
    Datagrams,
)
from kaa_bench.soak.devices import CoapDevice, Device, HttpDevice, KpudpDevice
from kaa_bench.soak.extension import ACK_WAIT_S, RECORD
from kaa_bench.soak.faults import Fault, faults_of, nats_killed
from kaa_bench.soak.mqtt_device import Qos0Device, Qos1Device, Qos2Device
from kaa_bench.soak.pushed_device import PushedDevice, push
from kaa_bench.soak.schedule import Step, rounds
from kaa_bench.soak.services import EXCHANGES, SAMPLES, Commands, ServicesDevice, prepare
from kaa_bench.soak.stored_records import StoredRecords

KINDS: tuple[tuple[type[Device], str], ...] = (
    (Qos0Device, "mqtt"),
    (Qos1Device, "mqtt"),
    (Qos2Device, "mqtt"),
    (HttpDevice, "http"),
    (CoapDevice, "coap"),
    (KpudpDevice, "kpudp"),
)
INSTANCES = {"core": CORE, "durable": DURABLE}
SERVICES = "services"
"""The mode of the devices that send to the reference services."""
SETTLE_S = 60.0
"""How long an acknowledged message may take after the devices have stopped; a redelivery takes 5 s."""
GRACE_S = 1.0
"""The time from the devices' last message to the first check, in which late acknowledgements arrive."""
POLL_S = 0.2

Row = tuple[str, str]
"""A mode, and a kind of device."""


class Recorder:
    """Reads the records of the extensions."""

    def __init__(self, file: Path, stored: StoredRecords, devices: dict[int, Device]) -> None:
        self._file = file
        self._stored = stored
        self._devices = devices
        self._read = 0

    def read(self) -> None:
        """Enter new records into the histories."""
        self._stored.read()
        if not self._file.exists():
            return
        with self._file.open("rb") as source:
            source.seek(self._read)
            data = source.read()
        whole = len(data) - len(data) % RECORD.size
        self._read += whole
        for device, number, connection, replica, at in RECORD.iter_unpack(data[:whole]):
            self._devices[device].history.deliver(number, connection, replica, at)


class Soak:
    """A soak, of the reference services only if that is said. `say` gets a line for each event.

    `seed` decides the order of faults and the lengths of pauses, and which datagrams are lost.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        devices: int,
        interval_s: float,
        pause_s: float,
        seed: int,
        only_services: bool = False,
    ) -> None:
        self._say = say
        self._only_services = only_services
        self._kinds = () if only_services else KINDS
        self._faults: tuple[Fault, ...] = (*faults_of(only_services=only_services), nats_killed)
        self._seed = seed
        self._count = devices
        self._interval_s = interval_s
        self._pause_s = pause_s
        self.devices: dict[int, Device] = {}
        self._modes: dict[int, str] = {}
        self.disturbances: list[Disturbance] = []
        self.findings: dict[str, Finding] = {name: Finding() for name in PROPERTIES}
        self.datagrams = Datagrams(0, 0, 0, 0)

    @property
    def faults(self) -> dict[str, int]:
        """Return how often each fault was caused."""
        return dict(Counter(disturbance.name for disturbance in self.disturbances))

    async def run(self, seconds: float) -> dict[Row, Account]:
        """Cause all faults, round by round, until the time is over; each at least once."""
        with ExitStack() as stack:
            self._say(f"seed {self._seed}")
            self._say("starting NATS, two gateways, extensions and the reference services")
            cluster = await asyncio.to_thread(
                partial(Cluster, stack, seed=self._seed, only_services=self._only_services)
            )
            async with AsyncExitStack() as proxies:
                await cluster.open_datagram_proxies(proxies)
                await self._live(cluster, time.monotonic() + seconds)
                self.datagrams = cluster.datagrams()
        self._check()
        return self._accounts()

    async def _live(self, cluster: Cluster, end: float) -> None:
        """Let devices send while faults are caused in turn."""
        nats_url = f"nats://{HOST}:{cluster.nats.ports[0]}"
        commands = Commands(nats_url)
        for kind, protocol in self._kinds:
            for mode, instance in INSTANCES.items():
                for _ in range(self._count):
                    number = len(self.devices)
                    ports = cluster.ports(protocol)
                    self.devices[number] = kind(number, APP_VERSION, instance, ports, self._interval_s)
                    self._modes[number] = mode
        for _ in range(self._count):
            number = len(self.devices)
            ports = cluster.ports("http")
            device = ServicesDevice(number, APP_VERSION, SAMPLES, ports, self._interval_s)
            self.devices[number] = device
            device.commands = commands
            self._modes[number] = SERVICES
        if not self._only_services:
            number = len(self.devices)
            self.devices[number] = PushedDevice(
                number, APP_VERSION, CORE, cluster.ports("mqtt"), self._interval_s
            )
            self._modes[number] = "core"
        tokens = [device.token for number, device in self.devices.items() if self._modes[number] == SERVICES]
        await asyncio.to_thread(prepare, nats_url, APPLICATION, APP_VERSION, tokens)
        await commands.open()
        stored = StoredRecords(nats_url, APP_VERSION, self.devices)
        recorder = Recorder(cluster.record, stored, self.devices)
        tasks = [asyncio.create_task(device.run()) for device in self.devices.values()]
        tasks += [
            asyncio.create_task(
                push(commands.client, device, GATEWAY_INSTANCE, APP_VERSION, self._interval_s)
            )
            for device in self.devices.values()
            if isinstance(device, PushedDevice)
        ]
        try:
            await self._break(cluster, recorder, end)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await end_tasks(tasks)
            await commands.close()

    async def _break(self, cluster: Cluster, recorder: Recorder, end: float) -> None:
        for steps in rounds(self._faults, self._pause_s, self._seed):
            for step in steps:
                await self._take(step, cluster)
            await asyncio.sleep(self._pause_s)
            await self._settle(recorder)
            if time.monotonic() > end:
                return

    async def _take(self, step: Step, cluster: Cluster) -> None:
        """Cause the faults of a step, and return when the cluster has recovered from them."""
        await asyncio.sleep(step.pause_s)
        self._say(" and ".join(fault.__name__.replace("_", " ") for fault in step.faults))
        await asyncio.gather(*(self._cause(fault, cluster) for fault in step.faults))

    async def _cause(self, fault: Fault, cluster: Cluster) -> None:
        began = time.monotonic()
        await fault(cluster)
        self.disturbances.append(Disturbance(fault.__name__, began, time.monotonic()))

    async def _settle(self, recorder: Recorder) -> None:
        """Pause the devices until all acknowledged messages are delivered, or the time for that is over."""
        for device in self.devices.values():
            device.pause(on=True)
        await asyncio.sleep(GRACE_S)
        deadline = time.monotonic() + SETTLE_S
        while True:
            await asyncio.to_thread(recorder.read)
            missing = self._missing()
            if not missing or time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_S)
        sent = sum(device.history.sent for device in self.devices.values())
        self._say(
            f"{sent} messages sent so far; {missing} of those acknowledged since the last look are missing"
        )
        for device in self.devices.values():
            device.history.write_off()
            device.pause(on=False)

    def _missing(self) -> int:
        """Return the number of messages that are acknowledged and must still be delivered."""
        disturbances = Disturbances(self.disturbances)
        return sum(
            lost(device.history.messages[number - 1], self._promises(device), disturbances) is True
            for device in self.devices.values()
            for number in device.history.missing()
        )

    def _promises(self, device: Device) -> Promises:
        if self._modes[device.number] != "durable":
            return device.promises
        return device.promises._replace(durable=True, redelivery_s=ACK_WAIT_S)

    def _check(self) -> None:
        for device in self.devices.values():
            found = check(device.history, self._promises(device), self.disturbances)
            for name, finding in found.items():
                self.findings[name].add(finding)

    def _accounts(self) -> dict[Row, Account]:
        accounts: dict[Row, Account] = {}
        disturbances = Disturbances(self.disturbances)
        for number, device in self.devices.items():
            promises = self._promises(device)
            if isinstance(device, ServicesDevice):
                for place, exchange in enumerate(EXCHANGES):
                    row = self._modes[number], f"{exchange.instance} {exchange.path}"
                    sums = account(device.history, promises, disturbances, place, len(EXCHANGES))
                    accounts.setdefault(row, Account()).add(sums)
                continue
            row = self._modes[number], device.kind
            accounts.setdefault(row, Account()).add(account(device.history, promises, disturbances))
        if any(not sums.delivered for sums in accounts.values()):
            raise BenchError("nothing was delivered of some devices: the soak has not shown anything")
        return accounts
