"""A gateway with MQTT-SN, whose times are short and whose bounds are small."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.mqtt_sn import SnClient
from tests.support.nats import NatsServer, free_port

SECTION: dict[str, Any] = {
    "enabled": True,
    "retry-timeout": 0.4,
    "retries": 2,
    "registered-topics": 8,
    "buffered-messages": 3,
    "connect-timeout": 1,
    "max-message-size": 300,
    "gateway-id": 7,
    "predefined-topics": [
        "1=kp1/app_v1/dcx/{client-id}/json",
        "2=kp1/app_v1/dcx/{client-id}/push/status",
        "3=kp1/app_v1/dcx/fixed/json",
    ],
}


class SnGateway(GatewayProcess):
    """A gateway with MQTT-SN at `port`."""

    def __init__(
        self, nats_url: str, changes: dict[str, Any] | None = None, *, replica: str = "replica-1", **kpc: Any
    ) -> None:
        self.port = free_port()
        section = SECTION | {"port": self.port} | (changes or {})
        transports = {"mqtt-sn": section, **kpc.pop("transport", {})}
        super().__init__(
            nats_url,
            {
                "service": {"instance": {"replica": {"id": replica}}},
                "kaa": {"kpc": {"transports": transports, **kpc}},
            },
        )


@pytest.fixture(scope="module")
def sn(shared_nats: NatsServer) -> Iterator[SnGateway]:
    """A gateway for the tests of a module."""
    with SnGateway(shared_nats.url) as gateway:
        yield gateway
        assert gateway.running, gateway.log
        assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture
def device(sn: SnGateway) -> Iterator[SnClient]:
    with SnClient(sn.port) as client:
        yield client
