"""The time limits of a client, and its will when it goes without a DISCONNECT.

Source: MQTT 3.1.1 sections 3.1.2.5, 3.1.2.10 and 3.1.4.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from kaa_bench.mqtt_packets import Connack, Disconnect, Puback, Publish, Will

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.nats import NatsServer

NewToken = Callable[[], str]


@pytest.fixture(scope="module")
def impatient_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway with the shortest time limits for CONNECT and for absent clients."""
    limits = {"connect-timeout": 0.1, "session-expiry": 0.1}
    with GatewayProcess(shared_nats.url, {"kaa": {"kpc": {"transports": {"mqtt": limits}}}}) as process:
        yield process


def will_of(token: str, qos: int = 0) -> Will:
    return Will(f"kp1/app_v1/dcx/{token}/will", b"will of " + token.encode(), qos)


async def test_a_client_that_falls_silent_is_gone(
    impatient_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The connection ends after one and a half keep-alive periods, and then the will is published (3.1.2-24).

    Whoever sends anything within its period stays, and so does whoever has no period (0).
    """
    port = impatient_gateway.mqtt_port
    before = impatient_gateway.count("events", "closed", "mqtt_keep_alive_timeout")
    token = new_token()

    async def keep_talking(device: MqttPeer) -> None:
        while True:
            assert await device.until_pingresp() == []
            await device.send(Publish("outside", b"", 1, 1))
            assert await device.expect(Puback) == Puback(1)
            await asyncio.sleep(0.1)

    async with (
        mqtt_client(port, keep_alive=1, will=will_of(token)) as silent,
        mqtt_client(port, keep_alive=1) as alive,
        mqtt_client(port, keep_alive=0) as timeless,
    ):
        talking = asyncio.create_task(keep_talking(alive))
        assert await silent.until_closed() == []
        assert (await cluster.request()).fields["payload"] == b"will of " + token.encode()
        assert not talking.done()
        assert await timeless.until_pingresp() == []
        talking.cancel()
    assert impatient_gateway.count("events", "closed", "mqtt_keep_alive_timeout") == before + 1


async def test_a_connection_without_connect_is_closed(impatient_gateway: GatewayProcess) -> None:
    """The time limit holds whether nothing or a part of CONNECT has come (3.1.4)."""
    before = impatient_gateway.count("events", "closed", "mqtt_connect_timeout")
    port = impatient_gateway.mqtt_port
    async with mqtt_client(port) as neighbour, mqtt_peer(port) as mute, mqtt_peer(port) as stammering:
        await stammering.send(bytes.fromhex("10 0d 0004 4d515454 04 02"))
        assert await mute.until_closed() == await stammering.until_closed() == []
        assert await neighbour.until_pingresp() == []
    assert impatient_gateway.count("events", "closed", "mqtt_connect_timeout") == before + 2


async def test_an_absent_session_expires(impatient_gateway: GatewayProcess, new_token: NewToken) -> None:
    client_id = new_token()
    before = impatient_gateway.count("events", "dropped", "session_expired")
    async with mqtt_client(impatient_gateway.mqtt_port, client_id, clean_session=False) as device:
        await device.send(Disconnect())
        assert await device.until_closed() == []
    await until(
        lambda: impatient_gateway.count("events", "dropped", "session_expired") > before,
        "the session to expire",
    )
    async with mqtt_peer(impatient_gateway.mqtt_port) as device:
        assert await device.connect(client_id, clean_session=False) == Connack(False, 0)


# Wills


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("end", ["abort", "end of stream", "violation"])
async def test_the_will_is_a_message_like_any_other(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, end: str, qos: int
) -> None:
    """The will is published on any end but DISCONNECT (3.1.2-8). Its token need not have been used before."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port, token, will=will_of(token, qos)) as device:
        await device.send(Publish("outside", b"", 1, 1))
        assert await device.expect(Puback) == Puback(1)
        assert not cluster.requests
        if end == "abort":
            await device.abort()
        elif end == "end of stream":
            await device.end_output()
        else:
            await device.send(b"\x00\x00")
        fields = (await cluster.request()).fields
    assert (fields["appVersionName"], fields["endpointId"]) == ("app_v1", token)
    assert (fields["resourcePath"], fields["payload"]) == ("/will", b"will of " + token.encode())
    assert fields["requestId"] is None


async def test_disconnect_drops_the_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """No will after DISCONNECT (3.14.4-3), even if a violation follows. A later message shows that none came."""
    token = new_token()
    for last_words in (b"", b"\x00\x00"):
        async with mqtt_client(shared_gateway.mqtt_port, will=will_of(token)) as device:
            await device.send(Disconnect(), last_words)
            assert await device.until_closed() == []
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"end"))
        assert (await cluster.request()).fields["payload"] == b"end"


async def test_a_refused_client_has_no_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """A refused CONNECT leaves nothing behind (3.1.4)."""
    token = new_token()
    async with mqtt_peer(shared_gateway.mqtt_port) as device:
        assert await device.connect("", clean_session=False, will=will_of(token)) == Connack(False, 2)
        assert await device.until_closed() == []
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"end"))
        assert (await cluster.request()).fields["payload"] == b"end"


async def test_a_will_outside_kp1_goes_nowhere(shared_gateway: GatewayProcess) -> None:
    before = shared_gateway.count("events", "ignored", "not_kp1")
    async with mqtt_client(shared_gateway.mqtt_port, will=Will("last/words", b"x", 2)) as device:
        await device.abort()
    await until(
        lambda: shared_gateway.count("events", "ignored", "not_kp1") == before + 1, "the will to be counted"
    )


async def test_wills_of_those_who_are_there_when_the_gateway_stops(
    shared_nats: NatsServer, cluster: Cluster, new_token: NewToken
) -> None:
    """The server closes the connection without the client's DISCONNECT (3.1.2.5); the drain waits for NATS."""
    tokens = [new_token() for _ in range(20)]
    with GatewayProcess(shared_nats.url) as gateway:
        devices = [mqtt_client(gateway.mqtt_port, will=will_of(token)) for token in tokens]
        for device in devices:
            await device.__aenter__()
        assert await asyncio.to_thread(gateway.stop) == 0
        for device in devices:
            await device.__aexit__(None, None, None)
    requests = await cluster.next_requests(len(tokens))
    assert {request.fields["endpointId"] for request in requests} == set(tokens)
