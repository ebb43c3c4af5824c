"""Runs a soak: starts devices, causes faults in turn, and closes the ledgers around each death of NATS."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

from kaa_bench.errors import BenchError
from kaa_bench.processes import HOST
from kaa_bench.soak.cluster import APP_VERSION, APPLICATION, CORE, DURABLE, Cluster, Datagrams
from kaa_bench.soak.devices import CoapDevice, Device, HttpDevice, KpudpDevice
from kaa_bench.soak.extension import RECORD
from kaa_bench.soak.faults import faults_of, nats_killed
from kaa_bench.soak.ledger import Account
from kaa_bench.soak.mqtt_device import Qos0Device, Qos1Device, Qos2Device
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
        """Enter new records into the ledgers."""
        self._stored.read()
        if not self._file.exists():
            return
        with self._file.open("rb") as source:
            source.seek(self._read)
            data = source.read()
        whole = len(data) - len(data) % RECORD.size
        self._read += whole
        for device, number in RECORD.iter_unpack(data[:whole]):
            self._devices[device].ledger.deliver(number)


class Soak:
    """A soak, of the reference services only if that is said. `say` gets a line for each event."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        devices: int,
        interval_s: float,
        pause_s: float,
        only_services: bool = False,
    ) -> None:
        self._say = say
        self._only_services = only_services
        self._kinds = () if only_services else KINDS
        self._faults = faults_of(only_services=only_services)
        self._count = devices
        self._interval_s = interval_s
        self._pause_s = pause_s
        self.devices: dict[int, Device] = {}
        self._modes: dict[int, str] = {}
        self.faults: dict[str, int] = {}
        self.datagrams = Datagrams(0, 0, 0, 0)

    async def run(self, seconds: float) -> dict[Row, Account]:
        """Cause all faults in turn until the time is over, each at least once."""
        with ExitStack() as stack:
            self._say("starting NATS, two gateways, extensions and the reference services")
            cluster = await asyncio.to_thread(partial(Cluster, stack, only_services=self._only_services))
            async with AsyncExitStack() as proxies:
                await cluster.open_datagram_proxies(proxies)
                await self._live(cluster, time.monotonic() + seconds)
                self.datagrams = cluster.datagrams()
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
        tokens = [device.token for number, device in self.devices.items() if self._modes[number] == SERVICES]
        await asyncio.to_thread(prepare, nats_url, APPLICATION, APP_VERSION, tokens)
        await commands.open()
        stored = StoredRecords(nats_url, APP_VERSION, self.devices)
        recorder = Recorder(cluster.record, stored, self.devices)
        tasks = [asyncio.create_task(device.run()) for device in self.devices.values()]
        try:
            await self._break(cluster, recorder, end)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await commands.close()

    async def _break(self, cluster: Cluster, recorder: Recorder, end: float) -> None:
        while True:
            for fault in self._faults:
                await asyncio.sleep(self._pause_s)
                await self._inflict(fault.__name__, fault(cluster))
                if time.monotonic() > end and self.faults.get(nats_killed.__name__):
                    await self._close(recorder, nats_died=False)
                    return
            await self._close(recorder, nats_died=False)
            await asyncio.sleep(self._pause_s)
            await self._inflict(nats_killed.__name__, nats_killed(cluster))
            await asyncio.sleep(self._pause_s)
            await self._close(recorder, nats_died=True)
            if time.monotonic() > end:
                return

    async def _inflict(self, name: str, fault: Awaitable[None]) -> None:
        self._say(name.replace("_", " "))
        await fault
        self.faults[name] = self.faults.get(name, 0) + 1

    async def _close(self, recorder: Recorder, *, nats_died: bool) -> None:
        """Pause the devices until all acknowledged messages are delivered, or the time for that is over."""
        for device in self.devices.values():
            device.pause(on=True)
        await asyncio.sleep(GRACE_S)
        deadline = time.monotonic() + SETTLE_S
        while True:
            await asyncio.to_thread(recorder.read)
            missing = sum(len(device.ledger.missing()) for device in self.devices.values())
            if not missing or time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_S)
        sent = sum(device.ledger.sent for device in self.devices.values())
        self._say(
            f"{sent} messages sent so far; {missing} of those acknowledged since the last look are missing"
        )
        for device in self.devices.values():
            device.ledger.close(nats_died=nats_died)
            device.pause(on=False)

    def _accounts(self) -> dict[Row, Account]:
        accounts: dict[Row, Account] = {}
        for number, device in self.devices.items():
            if isinstance(device, ServicesDevice):
                for place, exchange in enumerate(EXCHANGES):
                    row = self._modes[number], f"{exchange.instance} {exchange.path}"
                    accounts.setdefault(row, Account()).add(device.ledger.account(place, len(EXCHANGES)))
                continue
            accounts.setdefault((self._modes[number], device.kind), Account()).add(device.ledger.account())
        if any(not account.delivered for account in accounts.values()):
            raise BenchError("nothing was delivered of some devices: the soak has not shown anything")
        return accounts
