"""`kaa-sim run` on a real gateway: the gateway, the target and fleets of a scenario."""

from pathlib import Path

from kaa_bench.packets import APP_VERSION, EXTENSION
from kaa_bench.processes import Gateway, NatsServer, free_port
from kaa_bench.sim.cli import app

from tests.support.certificates import Authority

EXTENSIONS = ("cmx", "cex")
TARGETS = ("mqtt", "http", "coap", "kpudp")


class FullGateway(Gateway):
    """With the extensions that push, too, and MQTT over TLS and WebSocket."""

    def __init__(self, server: NatsServer) -> None:
        super().__init__(server)
        self.encrypted = {
            "mqtt-tls": self.carriers["tls"][1],
            "websocket": self.carriers["websocket"][1],
            "websocket-tls": free_port(),
        }
        self.authority = Authority(self.directory)
        self._certificate = self.authority.issue("127.0.0.1")

    def configuration(self) -> dict[str, object]:
        document: dict[str, object] = super().configuration()
        kaa = document["kaa"]
        assert isinstance(kaa, dict)
        allowed = [EXTENSION, *EXTENSIONS]
        kaa["applications"]["bench"]["versions"][APP_VERSION]["allowed-extension-instances"] = allowed
        kaa["extension-instances"] = {name: {"endpoint-aware": True} for name in allowed}
        files = {
            "enabled": True,
            "cert-file": str(self._certificate.cert_file),
            "key-file": str(self._certificate.key_file),
        }
        kaa["kpc"]["transports"]["mqtt"] |= {
            "tls": files | {"port": self.encrypted["mqtt-tls"]},
            "websocket": {
                "enabled": True,
                "port": self.encrypted["websocket"],
                "tls": files | {"port": self.encrypted["websocket-tls"]},
            },
        }
        return document


def target(gateway: Gateway) -> str:
    ports: dict[str, str] = {
        protocol: str(port) for protocol, (_, port) in gateway.addresses.items() if protocol in TARGETS
    }
    if isinstance(gateway, FullGateway):
        ports |= {name: str(port) for name, port in gateway.encrypted.items()}
        ports["ca-file"] = str(gateway.authority.file)
    return f"target: {{{', '.join(f'{key}: {value}' for key, value in ports.items())}}}\n"


def fleet(name: str, protocol: str, *more: str) -> str:
    lines = [
        f"- name: {name}", f"  protocol: {protocol}", "  devices: 2", "  interval: 100ms",
        f"  application-version: {APP_VERSION}", f"  token: {name}-{{device}}",
        "  payload: {x: {kind: walk, start: 0, step: 1}}", *(f"  {line}" for line in more),
    ]  # fmt: skip
    return "".join(f"  {line}\n" for line in lines)


def run(path: Path, scenario: str, *arguments: str) -> int:
    path.write_text(scenario)
    status = app(["run", str(path), *arguments], exit_on_error=False, result_action="return_value")
    assert isinstance(status, int)
    return status
