"""`kaa-sim load mqtt-sn` at a gateway, with messages that it takes and messages that nobody serves."""

import asyncio

import pytest
from kaa_bench.sim.cli import app

from tests.e2e.mqtt_sn.conftest import SnGateway
from tests.support.cluster import Cluster
from tests.support.nats import NatsServer


def load(port: int, extension: str) -> object:
    """Return the exit code of a short load."""
    arguments = [
        "load", "mqtt-sn", "--port", str(port), "--app-version", "app_v1", "--extension", extension,
        "--seconds", "0.3", "--connections", "2",
    ]  # fmt: skip
    return app(arguments, exit_on_error=False, result_action="return_value")


async def test_a_load_of_mqtt_sn(shared_nats: NatsServer, capsys: pytest.CaptureFixture[str]) -> None:
    with SnGateway(shared_nats.url) as gateway:
        async with Cluster(shared_nats.url, "dcx"):
            assert await asyncio.to_thread(load, gateway.port, "dcx") == 0
        assert await asyncio.to_thread(load, gateway.port, "nobody") == 1
        assert "error response" in capsys.readouterr().err
