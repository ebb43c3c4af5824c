"""The servers that the gateway is compared with, under the same load: Mosquitto, libcoap's and aiocoap's.

How each is configured, and why, is in docs/performance.md.
"""

import importlib.util
import shutil
import socket
import sys

from bench.connecting import Address, Protocol
from bench.errors import BenchError
from bench.processes import HOST, Server, free_port

RESOURCES_MAX = 10_000
"""Resources that libcoap's server may create: more than a row has devices."""


class Peer(Server):
    """A server of another project. `address` is where it serves `protocol`, `title` what the table calls it."""

    title: str
    protocol: Protocol
    address: Address

    @staticmethod
    def program() -> str | None:
        """Path of its program, None if it is not installed."""
        raise NotImplementedError

    def arguments(self) -> list[str]:
        """The arguments of the program, after writing the configuration that they name."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """See `Server.command`."""
        program = self.program()
        if program is None:
            raise BenchError(f"{self.title} is not installed")
        return [program, *self.arguments()]


class Mosquitto(Peer):
    """Mosquitto, without persistence, logs, or limits on messages in flight."""

    name = "mosquitto"
    title = "Mosquitto"
    protocol = "mqtt"

    def __init__(self) -> None:
        port = free_port()
        super().__init__(port)
        self.address = (HOST, port)

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`. Debian keeps it out of a user's PATH."""
        return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.ports[0]} {HOST}\n"
            "allow_anonymous true\n"
            "persistence false\n"
            "max_inflight_messages 0\n"
            "max_queued_messages 0\n"
            "log_dest none\n"
        )
        return ["-c", str(configuration)]


class CoapPeer(Peer):
    """A CoAP server that answers POST to the resource paths of the bench."""

    protocol = "coap"

    def __init__(self) -> None:
        port = free_port(socket.SOCK_DGRAM)
        super().__init__(coap_port=port)
        self.address = (HOST, port)


class Libcoap(CoapPeer):
    """The example server of libcoap: the first POST to a path creates a resource, others replace its content."""

    name = title = "libcoap"

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`. Without DTLS: the other builds also open a port for it."""
        return shutil.which("coap-server-notls")

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        return ["-A", HOST, "-p", str(self.address[1]), "-d", str(RESOURCES_MAX)]


class Aiocoap(CoapPeer):
    """aiocoap_server.py of this package."""

    name = title = "aiocoap"

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`: this interpreter, if it has aiocoap."""
        return sys.executable if importlib.util.find_spec("aiocoap") else None

    def arguments(self) -> list[str]:
        """See `Peer.arguments`."""
        return ["-m", "bench.peers.aiocoap_server", *map(str, self.address)]


PEERS: tuple[type[Peer], ...] = (Mosquitto, Libcoap, Aiocoap)
