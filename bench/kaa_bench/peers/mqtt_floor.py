"""The floor of the MQTT probes: a C program that makes the gateway's system calls and nothing else."""

from pathlib import Path

from kaa_bench.connecting import Address
from kaa_bench.peers.servers import Floor
from kaa_bench.processes import HOST, NatsServer, free_port


class MqttFloor(Floor):
    """mqtt_floor.c of this package, compiled at its first use. It accepts connections and forwards pushes."""

    name = "mqtt-floor"
    protocol = "mqtt"
    source = Path(__file__).with_name("mqtt_floor.c")

    def __init__(self, nats: NatsServer) -> None:
        port = free_port()
        super().__init__(port)
        self.address: Address = (HOST, port)
        self.nats_address: Address = nats.address

    def own_arguments(self) -> list[str]:
        """See `Floor.own_arguments`."""
        return [str(self.address[1]), str(self.nats_address[1])]
