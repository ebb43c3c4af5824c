"""What takes messages from an MQTT broker to NATS: the gateway's bridge, and a forwarder with other libraries."""

import sys

import yaml
from kaa_gateway.bus import subjects

from kaa_bench.connecting import Address
from kaa_bench.packets import APP_VERSION, EXTENSION
from kaa_bench.processes import HOST, INSTANCE, NatsServer, Server, free_port, is_ready

READY = "ready"
"""The line that the forwarder prints when it has subscribed."""
SHARED_SUBSCRIPTION = "$share/bench/kp1/#"


class BridgeServer(Server):
    """A process between a broker and NATS."""

    title: str

    def __init__(self, nats: NatsServer, broker: Address, *ports: int) -> None:
        super().__init__(*ports)
        self._nats_url = f"nats://{HOST}:{nats.ports[0]}"
        self._broker = broker


class Bridge(BridgeServer):
    """`kaa-gateway bridge` with the configuration of the bench's gateway."""

    name = "bridge"
    title = "kaa-gateway bridge"

    def __init__(self, nats: NatsServer, broker: Address) -> None:
        super().__init__(nats, broker, free_port())

    def command(self) -> list[str]:
        """See `Server.command`."""
        host, port = self._broker
        configuration = {
            "service": {"instance": {"name": INSTANCE, "replica": {"id": "bridge"}}},
            "server": {"port": self.ports[0]},
            "kaa": {
                "applications": {
                    "bench": {"versions": {APP_VERSION: {"allowed-extension-instances": [EXTENSION]}}}
                },
                "extension-instances": {EXTENSION: {}},
                "kpc": {
                    "transports": {"bind-address": HOST},
                    "bridge": {"url": f"mqtt://{host}:{port}", "share": "bench"},
                    "nats": {"urls": [self._nats_url]},
                    "identity": {"provider": "open"},
                    "log": {"level": "warning"},
                },
            },
        }
        file = self.directory / "service-config.yml"
        file.write_text(yaml.safe_dump(configuration))
        return [sys.executable, "-P", "-m", "kaa_gateway", "bridge", "--config", str(file)]

    def _ready(self) -> bool:
        """Return whether it has subscribed: a gateway that is a bridge only is not ready before."""
        return super()._ready() and is_ready(self.ports[0])


class Forwarder(BridgeServer):
    """mqtt_forwarder.py of kaa_bench/peers."""

    name = "forwarder"
    title = "aiomqtt + nats-py"

    def command(self) -> list[str]:
        """See `Server.command`."""
        subject = subjects.service(EXTENSION, "esp", subjects.CLIENT_DATA)
        module = "kaa_bench.peers.mqtt_forwarder"
        return [sys.executable, "-P", "-m", module, str(self._broker[1]), self._nats_url, subject]

    def _ready(self) -> bool:
        return READY in self.output()
