"""DISCONNECT both ways, keep-alive and authentication: MQTT 5.0, sections 3.14, 3.15, 3.1.2.10, 4.12 and 4.13."""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5.packets import Auth, Connack, Connect, Disconnect, Pingreq, Publish
from tests.support.mqtt5.peer import mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]
P = Property

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
SHUTTING_DOWN = 0x8B
BAD_AUTHENTICATION_METHOD = 0x8C
KEEP_ALIVE_TIMEOUT = 0x8D
ADMINISTRATIVE_ACTION = 0x98
USE_ANOTHER_SERVER = 0x9C


def configured(**mqtt: Any) -> dict[str, Any]:
    return {"kaa": {"kpc": {"transports": {"mqtt": mqtt}}}}


@pytest.fixture(scope="module")
def impatient(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway that grants a keep-alive of two seconds at most."""
    with GatewayProcess(shared_nats.url, configured(**{"max-keep-alive": 2})) as process:
        yield process


# From the client


@pytest.mark.parametrize(
    "vector",
    [
        "e0 01 01",  # a reason code that does not exist
        "e0 01 05",
        "e0 01 7f",
        "e0 01 ff",
        "e0 01 8b",  # ... that only a server has
        "e0 01 8e",
        "e0 01 9e",
        "e0 01 18",
        "e1 00",
        "e0 03 00 00 00",
    ],
)
async def test_malformed(shared_gateway: GatewayProcess, vector: str) -> None:
    """[MQTT-3.14.2-1] [MQTT-3.14.1-1] [MQTT-4.13.1-1]: answered or just closed; a server's code is let pass."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.refusal() in (MALFORMED, PROTOCOL_ERROR, None)


async def test_nothing_is_processed_after_disconnect(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.14.4-1] [MQTT-3.14.4-2]: and nothing is answered."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Disconnect(), Pingreq(), Publish(f"kp1/app_v1/dcx/{token}/json", b"late"))
        assert await peer.until_closed() == []
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"new"))
        assert (await cluster.request()).fields["payload"] == b"new"


# From the gateway


async def test_the_gateway_stops(nats_server: NatsServer) -> None:
    """[MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-4.13.2-1]: every client is told."""
    with GatewayProcess(nats_server.url) as gateway:
        async with mqtt5_client(gateway.mqtt_port) as one, mqtt5_client(gateway.mqtt_port) as other:
            gateway.terminate()
            for peer in (one, other):
                disconnect = await peer.until_disconnect()
                assert disconnect.reason_code == SHUTTING_DOWN
                assert disconnect.get(P.SERVER_REFERENCE) is None


async def test_the_gateway_stops_and_names_another(nats_server: NatsServer) -> None:
    """4.11, 3.14.2.2.5: `server-reference`."""
    changes = configured(**{"server-reference": "other.example.com:1883"})
    with GatewayProcess(nats_server.url, changes) as gateway:
        async with mqtt5_client(gateway.mqtt_port) as peer:
            gateway.terminate()
            disconnect = await peer.until_disconnect()
    assert disconnect.reason_code == USE_ANOTHER_SERVER
    assert disconnect.get(P.SERVER_REFERENCE) == "other.example.com:1883"


async def test_an_operator_ends_a_session(shared_gateway: GatewayProcess, new_token: NewToken) -> None:
    """[MQTT-3.14.2-1] [MQTT-4.13.2-1]"""
    client_id = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, client_id) as peer:
        base = f"http://{HOST}:{shared_gateway.admin_port}/api/v1/sessions"

        def end() -> None:
            with urllib.request.urlopen(f"{base}?client={client_id}", timeout=20) as response:
                (session,) = json.load(response)["sessions"]
            assert session["version"] == "5.0"
            order = urllib.request.Request(f"{base}/{session['id']}", method="DELETE")
            urllib.request.urlopen(order, timeout=20).close()

        await asyncio.to_thread(end)
        assert (await peer.until_disconnect()).reason_code == ADMINISTRATIVE_ACTION


async def test_a_client_that_falls_silent(impatient: GatewayProcess) -> None:
    """[MQTT-3.1.2-22] [MQTT-3.2.2-22]: after one and a half times its keep-alive."""
    async with mqtt5_peer(impatient.mqtt_port) as peer:
        assert (await peer.connect(keep_alive=1)).get(P.SERVER_KEEP_ALIVE) is None
        assert (await peer.until_disconnect()).reason_code == KEEP_ALIVE_TIMEOUT


@pytest.mark.parametrize("asked", [0, 3, 60, 65535])
async def test_the_keep_alive_of_the_gateway(impatient: GatewayProcess, asked: int) -> None:
    """[MQTT-3.2.2-21] [MQTT-3.1.2-21]: CONNACK tells it if it is less than what was asked for, and it counts."""
    async with mqtt5_peer(impatient.mqtt_port) as peer:
        assert (await peer.connect(keep_alive=asked)).get(P.SERVER_KEEP_ALIVE) == 2
        assert (await peer.until_disconnect()).reason_code == KEEP_ALIVE_TIMEOUT


async def test_who_speaks_stays(impatient: GatewayProcess) -> None:
    """[MQTT-3.1.2-20] [MQTT-3.1.2-22]: any packet will do."""
    async with mqtt5_client(impatient.mqtt_port, keep_alive=1) as peer:
        for number in range(6):
            await asyncio.sleep(0.5)
            await peer.send(Publish("outside") if number % 2 else Pingreq())
        assert all(not isinstance(packet, Disconnect) for packet in await peer.until_pingresp())


# Authentication


@pytest.mark.parametrize("data", [(), ((P.AUTHENTICATION_DATA, b"data"),)])
@pytest.mark.parametrize("method", ["SCRAM-SHA-1", "none", ""])
async def test_enhanced_authentication_is_refused(
    shared_gateway: GatewayProcess, method: str, data: tuple[tuple[Property, Any], ...]
) -> None:
    """[MQTT-4.12.0-1] [MQTT-4.12.0-4] [MQTT-3.1.2-30]: there is no method; no AUTH is ever sent."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect(properties=((P.AUTHENTICATION_METHOD, method), *data)))
        assert await peer.until_closed() == [Connack(False, BAD_AUTHENTICATION_METHOD)]


async def test_authentication_data_without_a_method(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.1.4-1], 3.1.2.11.10: a protocol error."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.send(Connect(properties=((P.AUTHENTICATION_DATA, b"data"),)))
        assert await peer.refusal() == PROTOCOL_ERROR


@pytest.mark.parametrize(
    "packet",
    [
        Auth(),
        Auth(0x18),
        Auth(0x19, properties=((P.AUTHENTICATION_METHOD, "SCRAM-SHA-1"),)),
        Auth(0x18, properties=((P.AUTHENTICATION_METHOD, "m"), (P.AUTHENTICATION_DATA, b"d"))),
    ],
)
async def test_auth_is_a_protocol_error(shared_gateway: GatewayProcess, packet: Auth) -> None:
    """[MQTT-4.12.0-6] [MQTT-4.12.0-7] [MQTT-4.12.1-1] [MQTT-4.12.1-2] [MQTT-3.15.2-1]: no method was agreed upon."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(packet)
        assert await peer.refusal() == PROTOCOL_ERROR
