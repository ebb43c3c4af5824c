"""The floor of MQTT's rows that are no load: a C program with the gateway's system calls and nothing else."""

import shutil
import subprocess
from pathlib import Path

from bench.connecting import Address
from bench.errors import BenchError
from bench.peers.servers import Peer
from bench.processes import HOST, NatsServer, free_port


class MqttFloor(Peer):
    """mqtt_floor.c of this package, compiled when it is first needed: connects, and is pushed to, and no more."""

    name = "mqtt-floor"
    title = "C, same system calls"
    protocol = "mqtt"
    source = Path(__file__).with_name("mqtt_floor.c")

    def __init__(self, nats: NatsServer) -> None:
        port = free_port()
        super().__init__(port)
        self.address: Address = (HOST, port)
        self.nats_address: Address = nats.address

    @staticmethod
    def program() -> str | None:
        """See `Peer.program`: the compiler that makes it."""
        return shutil.which("cc")

    def arguments(self) -> list[str]:
        """See `Peer.arguments`: the compiler's."""
        return ["-O2", "-o", str(self.directory / self.name), str(self.source)]

    def command(self) -> list[str]:
        """See `Server.command`."""
        built = subprocess.run(super().command(), capture_output=True, text=True, check=False)
        if built.returncode:
            raise BenchError(f"{self.source.name}: {built.stderr.strip()}")
        return [str(self.directory / self.name), str(self.address[1]), str(self.nats_address[1])]
