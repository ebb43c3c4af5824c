"""Real MQTT-SN clients: that of PyPI (mqtt-sn-12), and mqtt-sn-tools and Paho's samples where they are installed."""

import asyncio
import shutil
import sys
from collections.abc import Callable

import pytest

from tests.e2e.mqtt_sn.conftest import SnGateway
from tests.support.cluster import Cluster
from tests.support.nats import HOST

NewToken = Callable[[], str]
TIMEOUT_S = 60.0


def program(name: str) -> list[str]:
    """Return how a program is started. Skips the test if it is not there."""
    if name.startswith("mqtt_sn_"):
        pytest.importorskip("mqttsn12")
        return [sys.executable, "-m", f"mqttsn12.{name}"]
    if (path := shutil.which(name)) is None:
        pytest.skip(f"{name} is not installed")
    return [path]


PUBLISHERS = ["mqtt_sn_pub", "mqtt-sn-pub"]
SUBSCRIBERS = ["mqtt_sn_sub", "mqtt-sn-sub"]


@pytest.mark.parametrize("name", PUBLISHERS)
@pytest.mark.parametrize("qos", ["0", "1"])
@pytest.mark.parametrize("topic", ["registered", "predefined"])
async def test_publishing(
    sn: SnGateway, cluster: Cluster, new_token: NewToken, name: str, qos: str, topic: str
) -> None:
    token = new_token()
    where = ["-T", "1"] if topic == "predefined" else ["-t", f"kp1/app_v1/dcx/{token}/json"]
    command = [*program(name), "-h", HOST, "-p", str(sn.port), "-i", token, "-q", qos, *where, "-m", "{}"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, output.decode()
    request = await cluster.request()
    assert (request.fields["endpointId"], request.fields["payload"]) == (token, b"{}")


@pytest.mark.parametrize("name", PUBLISHERS)
async def test_publishing_at_qos_minus_1(sn: SnGateway, cluster: Cluster, name: str) -> None:
    command = [*program(name), "-h", HOST, "-p", str(sn.port), "-q", "-1", "-T", "3", "-m", "{}"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, output.decode()
    assert (await cluster.request()).fields["endpointId"] == "fixed"


@pytest.mark.parametrize("name", SUBSCRIBERS)
@pytest.mark.parametrize("path", ["/push/status", "/+/status"])
async def test_subscribing(
    sn: SnGateway, cluster: Cluster, new_token: NewToken, name: str, path: str
) -> None:
    token = new_token()
    process = await asyncio.create_subprocess_exec(
        *program(name), "-1", "-h", HOST, "-p", str(sn.port), "-i", token, "-q", "1",
        "-t", f"kp1/app_v1/dcx/{token}{path}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    await cluster.connectivity("connected", token)
    await cluster.push(token, b"news", resourcePath="/push")
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert b"news" in output, output.decode()
