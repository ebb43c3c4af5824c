"""The servers that the gateway is compared with under the same load, each configured for speed.

docs/performance.md explains the configurations.
"""

import getpass
import importlib.util
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import yaml
from kaa_gateway.bus import subjects

from kaa_bench import packets
from kaa_bench.certificate import write_certificate
from kaa_bench.connecting import Address, Carrier, LoadProtocol
from kaa_bench.errors import BenchError
from kaa_bench.processes import HOST, NatsServer, Server, free_port, nats_program

RESOURCES_MAX = 10_000
"""Resources that libcoap's server may create: more than the devices of a row."""
CONNECTIONS_MAX = 50_000
"""The limit of connections for peers that have a lower one by default."""
OWN_ENVIRONMENT = Path("peers", "bin")
"""The directory below this environment in which `make peers` installs peers with other dependencies."""


class Peer(Server):
    """A server of another project. It serves `protocol` at `address`; `title` is its name in the table."""

    title: str
    protocol: LoadProtocol
    address: Address
    carried_by: tuple[Carrier, ...] = ("tcp",)
    """What may carry its protocol."""
    forwards = False
    """Whether it does all of the gateway's work: to the extension over NATS, and back with the answer."""
    stores = False
    """Whether it stores a QoS 1 message before it acknowledges it."""
    mqtt_5 = False
    """Whether it speaks MQTT 5. Without, it is measured with MQTT 3.1.1 beside it, if it is `compared_with_mqtt_5`."""
    compared_with_mqtt_5 = False
    flood: int | None = None
    """The length of a run without acknowledgements, for a server that queues messages without a limit."""

    @property
    def carriers(self) -> dict[Carrier, Address]:
        """Return its addresses, by what carries its protocol."""
        return {self.carried_by[0]: self.address}

    @staticmethod
    def program() -> str | None:
        """Return the path of its program, None if it is not installed."""
        raise NotImplementedError

    def arguments(self) -> list[str]:
        """Write the configuration, and return the arguments of the program."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """See `Server.command`."""
        program = self.program()
        if program is None:
            raise BenchError(f"{self.title} is not installed")
        return [program, *self.arguments()]


class Mosquitto(Peer):
    """Mosquitto without persistence, logs, or limits on messages in flight."""

    name = "mosquitto"
    title = "Mosquitto"
    protocol = "mqtt"
    carried_by = ("tcp", "tls", "websocket")
    mqtt_5 = True

    def __init__(self) -> None:
        super().__init__(free_port(), free_port(), free_port())
        self.address = (HOST, self.ports[0])

    @property
    def carriers(self) -> dict[Carrier, Address]:
        """See `Peer.carriers`."""
        tcp, tls, websocket = self.ports
        return {"tcp": (HOST, tcp), "tls": (HOST, tls), "websocket": (HOST, websocket)}

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`. Debian does not install it in a user's PATH."""
        return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        configuration = self.directory / "mosquitto.conf"
        certificate, key = write_certificate(self.directory)
        tcp, tls, websocket = self.ports
        configuration.write_text(
            f"listener {tcp} {HOST}\n"
            f"listener {tls} {HOST}\ncertfile {certificate}\nkeyfile {key}\n"
            f"listener {websocket} {HOST}\nprotocol websockets\n"
            "allow_anonymous true\n"
            f"user {getpass.getuser()}\n"  # as root it would become another one, who cannot read the key
            "persistence false\n"
            "max_inflight_messages 0\n"
            "max_queued_messages 0\n"
            "log_dest none\n"
        )
        return ["-c", str(configuration)]


class NatsMqtt(Peer):
    """The MQTT of nats-server, with JetStream, which it needs for sessions and QoS 1."""

    name = "nats-mqtt"
    title = "nats-server MQTT"
    protocol = "mqtt"
    stores = True
    compared_with_mqtt_5 = True

    def __init__(self) -> None:
        nats, mqtt = free_port(), free_port()
        super().__init__(nats, mqtt)
        self.address = (HOST, mqtt)
        self.nats_address = (HOST, nats)

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`."""
        return nats_program()

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        configuration = self.directory / "nats.conf"
        configuration.write_text(
            "server_name: bench\n"
            f"host: {HOST}\n"
            f"port: {self.ports[0]}\n"
            f'jetstream {{ store_dir: "{self.directory}" }}\n'
            f"mqtt {{\n  host: {HOST}\n  port: {self.ports[1]}\n  {self.encryption()}\n}}\n"
        )
        return ["-c", str(configuration)]

    def encryption(self) -> str:
        """Return what the configuration of its MQTT says of TLS."""
        return ""


class NatsMqttTls(NatsMqtt):
    """The same over TLS. It has one listener for MQTT, so this is a server of its own."""

    carried_by = ("tls",)
    compared_with_mqtt_5 = False

    def encryption(self) -> str:
        """See `NatsMqtt.encryption`."""
        certificate, key = write_certificate(self.directory)
        return f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'


class Amqtt(Peer):
    """The broker of amqtt with the authentication plug-in for anonymous clients and no other."""

    name = title = "amqtt"
    protocol = "mqtt"
    flood = 20_000

    def __init__(self) -> None:
        port = free_port()
        super().__init__(port)
        self.address = (HOST, port)

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`. It has a separate environment, because it pins a version of `websockets`."""
        return shutil.which("amqtt", path=str(sys.prefix / OWN_ENVIRONMENT)) or shutil.which("amqtt")

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        configuration = self.directory / "amqtt.yaml"
        listener = {"type": "tcp", "bind": f"{HOST}:{self.ports[0]}", "max_connections": CONNECTIONS_MAX}
        anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        configuration.write_text(yaml.safe_dump({"listeners": {"default": listener}, "plugins": anonymous}))
        return ["-c", str(configuration)]


class HttpPeer(Peer):
    """An HTTP server in Python for POSTs to the resource paths of the bench."""

    protocol = "http"
    module: str

    def __init__(self) -> None:
        port = free_port()
        super().__init__(port)
        self.address = (HOST, port)

    @classmethod
    def program(cls) -> str | None:
        """See `Peer.program`: this interpreter, which has the dependencies."""
        return sys.executable

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        return ["-P", "-m", self.module, *map(str, self.address)]


class Httptools(HttpPeer):
    """httptools_server.py of this package, the minimum in Python. It answers without an extension."""

    name = "httptools"
    title = "bare httptools"
    module = "kaa_bench.peers.httptools_server"


class AiohttpNats(HttpPeer):
    """aiohttp_server.py of this package, a gateway on aiohttp, fastavro and nats-py."""

    name = "aiohttp-nats"
    title = "aiohttp + nats-py"
    module = "kaa_bench.peers.aiohttp_server"
    forwards = True

    def __init__(self, nats: NatsServer) -> None:
        super().__init__()
        self._nats = nats

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        return [*super().arguments(), f"nats://{HOST}:{self._nats.ports[0]}"]


class CoapPeer(Peer):
    """A CoAP server for POSTs to the resource paths of the bench."""

    protocol: LoadProtocol = "coap"

    def __init__(self) -> None:
        port = free_port(socket.SOCK_DGRAM)
        super().__init__(coap_port=port)
        self.address = (HOST, port)


class Libcoap(CoapPeer):
    """The example server of libcoap. The first POST to a path creates a resource, others replace its content."""

    name = title = "libcoap"

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`. This build has no DTLS; the others open a port for it."""
        return shutil.which("coap-server-notls")

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        return ["-A", HOST, "-p", str(self.address[1]), "-d", str(RESOURCES_MAX)]


class LibcoapTcp(Libcoap):
    """The same over TCP, on the port of the same number."""

    name = "libcoap-tcp"
    protocol = "coap-tcp"


class Aiocoap(CoapPeer):
    """aiocoap_server.py of this package."""

    name = title = "aiocoap"

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`: this interpreter, if it has aiocoap."""
        return sys.executable if importlib.util.find_spec("aiocoap") else None

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        return ["-P", "-m", "kaa_bench.peers.aiocoap_server", *map(str, self.address)]


class Floor(Peer):
    """A C program of this package that makes the gateway's system calls and nothing else, compiled at its first use."""

    title = "C, same system calls"
    source: Path

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`: the compiler."""
        return shutil.which("cc")

    def arguments(self) -> list[str]:
        """See `Peer.arguments`: those of the compiler."""
        return ["-O2", "-o", str(self.directory / self.name), str(self.source)]

    def own_arguments(self) -> list[str]:
        """Write the files of the compiled program, and return its arguments."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """See `Server.command`."""
        built = subprocess.run(super().command(), capture_output=True, text=True, check=False)
        if built.returncode:
            raise BenchError(f"{self.source.name}: {built.stderr.strip()}")
        return [str(self.directory / self.name), *self.own_arguments()]


class NatsFloor(Floor):
    """A floor that carries requests to the extension and back."""

    forwards = True

    def __init__(self, nats: NatsServer) -> None:
        super().__init__()
        self._nats = nats

    def own_arguments(self) -> list[str]:
        """See `Floor.own_arguments`."""
        inbox = subjects.replica("bench-floor", "esp", subjects.EXTENSION_DATA)
        publication = packets.nats_publication(0, inbox)
        template = self.directory / "publication"
        template.write_bytes(publication)
        number = publication.index(packets.CORRELATION_ID.encode())
        ports = map(str, (self.address[1], self._nats.ports[0]))
        return [*ports, inbox, str(template), str(number)]


class CoapFloor(NatsFloor, CoapPeer):
    """coap_floor.c of this package."""

    name = "coap-floor"
    source = Path(__file__).with_name("coap_floor.c")


class HttpFloor(NatsFloor, HttpPeer):
    """http_floor.c of this package."""

    name = "http-floor"
    source = Path(__file__).with_name("http_floor.c")


class TlsFloor(Floor):
    """tls_floor.c of this package, compiled at its first use. It answers clients, and forwards nothing."""

    name = "tls-floor"
    title = "C, OpenSSL alone"
    protocol = "mqtt"
    carried_by = ("tls",)
    source = Path(__file__).with_name("tls_floor.c")

    def __init__(self) -> None:
        port = free_port()
        super().__init__(port)
        self.address = (HOST, port)

    def arguments(self) -> list[str]:
        """See `Floor.arguments`."""
        return [*super().arguments(), "-lssl", "-lcrypto"]

    def own_arguments(self) -> list[str]:
        """See `Floor.own_arguments`."""
        certificate, key = write_certificate(self.directory)
        return [str(self.address[1]), str(certificate), str(key)]


PEERS: tuple[type[Peer], ...] = (
    NatsMqtt,
    NatsMqttTls,
    Mosquitto,
    TlsFloor,
    Amqtt,
    Libcoap,
    LibcoapTcp,
    Aiocoap,
    CoapFloor,
    AiohttpNats,
    Httptools,
    HttpFloor,
)
