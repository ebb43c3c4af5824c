"""Wills: MQTT 5.0, sections 3.1.2.5, 3.1.3.2 and 3.14.4. A will to a topic of 1/KP becomes a ClientData."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5.packets import Disconnect, Publish, Will
from tests.support.mqtt5.peer import mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property

NewToken = Callable[[], str]
P = Property

PROTOCOL_ERROR = 0x82
TAKEN_OVER = 0x8E
WITH_WILL = 0x04


def expiry(seconds: int) -> tuple[tuple[Property, Any], ...]:
    return ((P.SESSION_EXPIRY_INTERVAL, seconds),)


def will_of(token: str, *, delay: int | None = None, **fields: Any) -> Will:
    properties = () if delay is None else ((P.WILL_DELAY_INTERVAL, delay),)
    return Will(f"kp1/app_v1/dcx/{token}/will", b"will", properties=properties, **fields)


async def payloads_until_marker(gateway: GatewayProcess, cluster: Cluster, token: str) -> list[bytes]:
    """What has come of the endpoint before a message that is sent now."""
    async with mqtt5_client(gateway.mqtt_port) as peer:
        await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"marker"))
        while not any(request.fields["payload"] == b"marker" for request in cluster.requests):
            await cluster.next_requests(len(cluster.requests) + 1)
    return [
        request.fields["payload"]
        for request in cluster.requests
        if request.fields["endpointId"] == token and request.fields["payload"] != b"marker"
    ]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_connection_that_breaks(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, qos: int
) -> None:
    """[MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-14]: once."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, will=will_of(token, qos=qos)) as peer:
        await peer.abort()
        assert (await cluster.request()).fields["payload"] == b"will"
    assert await payloads_until_marker(shared_gateway, cluster, token) == [b"will"]


@pytest.mark.parametrize(
    "code", [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]
)
async def test_disconnect_with_another_reason_code(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, code: int
) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.14.2-1]"""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port, will=will_of(token)) as peer:
        await peer.send(Disconnect(code))
        assert await peer.until_closed() == []
        assert (await cluster.request()).fields["payload"] == b"will"


async def test_disconnect_deletes_the_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.14.4-3] [MQTT-3.1.2-8] [MQTT-3.1.2-10]"""
    token = new_token()
    for vector in (b"\xe0\x00", b"\xe0\x01\x00", b"\xe0\x02\x00\x00"):
        async with mqtt5_client(shared_gateway.mqtt_port, will=will_of(token)) as peer:
            await peer.send(vector)
            assert await peer.until_closed() == []
    assert await payloads_until_marker(shared_gateway, cluster, token) == []


async def test_a_violation_publishes_the_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-8]: the connection is closed without the client's DISCONNECT."""
    async with mqtt5_client(shared_gateway.mqtt_port, will=will_of(new_token())) as peer:
        await peer.send(b"\xc1\x00")
        assert (await cluster.request()).fields["payload"] == b"will"


async def test_the_will_waits(shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken) -> None:
    """[MQTT-3.1.2-8]: for the Will Delay Interval."""
    token = new_token()
    async with mqtt5_client(
        shared_gateway.mqtt_port, token, will=will_of(token, delay=2), properties=expiry(60)
    ) as peer:
        await peer.abort()
        await peer.until_closed()
    assert await payloads_until_marker(shared_gateway, cluster, token) == []
    requests = await cluster.next_requests(1, after=1)
    assert requests[0].fields["payload"] == b"will"


async def test_who_comes_back_in_time_has_no_will_published(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.3-9]: not then, and not when the delay is over; the new connection's will counts from then on."""
    token = new_token()
    port = shared_gateway.mqtt_port
    async with mqtt5_client(port, token, will=will_of(token, delay=2), properties=expiry(60)) as peer:
        await peer.abort()
        await peer.until_closed()
    async with mqtt5_client(port, token, clean_start=False, properties=expiry(60)) as peer:
        other, later = new_token(), new_token()
        # A will whose delay ends later than that of the first shows that the time has passed.
        async with mqtt5_client(port, other, will=will_of(other, delay=3), properties=expiry(60)) as witness:
            await witness.abort()
        await cluster.next_requests(1)
        assert [request.fields["endpointId"] for request in cluster.requests] == [other]
        assert await payloads_until_marker(shared_gateway, cluster, later) == []
        assert await peer.until_pingresp() == []


@pytest.mark.parametrize("kept", [(), expiry(1)])
async def test_the_will_comes_at_the_end_of_the_session_at_the_latest(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, kept: Any
) -> None:
    """[MQTT-3.1.2-8], 3.1.3.2.2: a Will Delay Interval that is longer than the session is kept."""
    token = new_token()
    async with mqtt5_client(
        shared_gateway.mqtt_port, token, will=will_of(token, delay=3600), properties=kept
    ) as peer:
        await peer.abort()
        assert (await cluster.request()).fields["payload"] == b"will"


async def test_disconnect_with_will_keeps_the_delay(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """3.1.3.2.2, 3.14.2.2.2: and an expiry of 0 in DISCONNECT ends the session, and the delay with it."""
    token = new_token()
    async with mqtt5_client(
        shared_gateway.mqtt_port, token, will=will_of(token, delay=3600), properties=expiry(3600)
    ) as peer:
        await peer.send(Disconnect(WITH_WILL, properties=expiry(0)))
        assert await peer.until_closed() == []
        assert (await cluster.request()).fields["payload"] == b"will"


async def test_taking_over_without_a_delay_publishes_the_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.4-3] [MQTT-3.1.2-8]: the old connection ends without its client's DISCONNECT."""
    token = new_token()
    port = shared_gateway.mqtt_port
    async with (
        mqtt5_client(port, token, will=will_of(token), properties=expiry(60)) as old,
        mqtt5_client(port, token, clean_start=False, properties=expiry(60)),
    ):
        assert (await old.until_disconnect()).reason_code == TAKEN_OVER
        assert (await cluster.request()).fields["payload"] == b"will"


async def test_taking_over_within_the_delay_publishes_no_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.3-9]"""
    token = new_token()
    port = shared_gateway.mqtt_port
    async with (
        mqtt5_client(port, token, will=will_of(token, delay=60), properties=expiry(60)) as old,
        mqtt5_client(port, token, clean_start=False, properties=expiry(60)),
    ):
        assert (await old.until_disconnect()).reason_code == TAKEN_OVER
        assert await payloads_until_marker(shared_gateway, cluster, token) == []


async def test_a_clean_start_ends_the_session_and_publishes_the_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-4] [MQTT-3.1.2-8]: the end of the session ends the delay as well."""
    token = new_token()
    port = shared_gateway.mqtt_port
    async with (
        mqtt5_client(port, token, will=will_of(token, delay=60), properties=expiry(60)) as old,
        mqtt5_client(port, token, properties=expiry(60)),
    ):
        assert (await old.until_disconnect()).reason_code == TAKEN_OVER
        assert (await cluster.request()).fields["payload"] == b"will"


async def test_properties_of_a_will(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.3-10]: its expiry becomes the timeout of 4/ESP; the rest has no place there."""
    token = new_token()
    properties = (
        (P.MESSAGE_EXPIRY_INTERVAL, 30), (P.PAYLOAD_FORMAT_INDICATOR, 1), (P.CONTENT_TYPE, "text/plain"),
        (P.CORRELATION_DATA, b"x"), (P.RESPONSE_TOPIC, "r"), (P.USER_PROPERTY, ("a", "b")), (P.WILL_DELAY_INTERVAL, 0),
    )  # fmt: skip
    will = Will(f"kp1/app_v1/dcx/{token}/will", b"will", properties=properties)
    async with mqtt5_client(shared_gateway.mqtt_port, will=will) as peer:
        await peer.abort()
        request = await cluster.request()
    assert (request.fields["payload"], request.fields["timeout"]) == (b"will", 30_000)


async def test_a_delay_of_a_packet_that_is_no_connect(shared_gateway: GatewayProcess) -> None:
    """[MQTT-4.13.1-1]"""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        await peer.connect()
        await peer.send(Publish("outside", properties=((P.WILL_DELAY_INTERVAL, 1),)))
        assert await peer.refusal() in (0x81, PROTOCOL_ERROR)
