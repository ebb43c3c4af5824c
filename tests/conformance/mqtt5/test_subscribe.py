"""SUBSCRIBE and UNSUBSCRIBE: MQTT 5.0, sections 3.8 to 3.11, 4.7 and 4.8."""

from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5.packets import (
    DO_NOT_SEND_RETAINED,
    NO_LOCAL,
    RETAIN_AS_PUBLISHED,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from tests.support.mqtt5.peer import Mqtt5Peer, mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property

NewToken = Callable[[], str]
P = Property

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
TOPIC_FILTER_INVALID = 0x8F
SHARED_NOT_SUPPORTED = 0x9E
NO_SUBSCRIPTION_EXISTED = 0x11


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    "topic_filter", ["a", "#", "+", "a/#", "+/+/+", "/", "//", "a//b", "+/#", "$SYS/#", "a b", "x" * 200]
)
async def test_filters_are_granted(shared_gateway: GatewayProcess, topic_filter: str, qos: int) -> None:
    """[MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        assert await peer.subscribe(topic_filter, options=qos) == (qos,)


@pytest.mark.parametrize(
    "options",
    [
        NO_LOCAL,
        RETAIN_AS_PUBLISHED,
        0x10,
        DO_NOT_SEND_RETAINED,
        NO_LOCAL | RETAIN_AS_PUBLISHED | DO_NOT_SEND_RETAINED | 2,
    ],
)
async def test_options_are_accepted(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, options: int
) -> None:
    """[MQTT-3.8.3-3] [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-12] [MQTT-3.3.1-13]: nothing is
    retained, and no client gets what another has published."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        assert await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=options) == (options & 3,)
        await cluster.connectivity("connected", token)
        await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"own", 1, 1))
        assert await peer.expect(Puback) == Puback(1)
        await cluster.push(token, b"push")
        publish = await peer.expect(Publish)
        assert (publish.payload, publish.retain, publish.qos) == (b"push", False, options & 3)


@pytest.mark.parametrize(
    ("vector", "codes"),
    [
        # MQTT-3.8.3-5: reserved bits of the options
        ("82 07 0001 00 0001 61 40", {MALFORMED}),
        ("82 07 0001 00 0001 61 80", {MALFORMED}),
        # 3.8.3.1: QoS 3, Retain Handling 3
        ("82 07 0001 00 0001 61 03", {MALFORMED, PROTOCOL_ERROR}),
        ("82 07 0001 00 0001 61 30", {MALFORMED, PROTOCOL_ERROR}),
        # MQTT-2.2.1-3: packet identifier 0
        ("82 07 0000 00 0001 61 00", {MALFORMED, PROTOCOL_ERROR}),
        ("a2 06 0000 00 0001 61", {MALFORMED, PROTOCOL_ERROR}),
        # MQTT-3.8.3-2, MQTT-3.10.3-2: no topic filter
        ("82 03 0001 00", {MALFORMED, PROTOCOL_ERROR}),
        ("a2 03 0001 00", {MALFORMED, PROTOCOL_ERROR}),
        # MQTT-3.8.3-1, MQTT-3.10.3-1: no UTF-8; U+0000
        ("82 07 0001 00 0001 ff 00", {MALFORMED}),
        ("82 07 0001 00 0001 00 00", {MALFORMED}),
        ("a2 06 0001 00 0001 ff", {MALFORMED}),
    ],
)
async def test_malformed(shared_gateway: GatewayProcess, vector: str, codes: set[int]) -> None:
    """[MQTT-3.8.3-1] [MQTT-3.8.3-2] [MQTT-3.8.3-5] [MQTT-3.10.3-1] [MQTT-3.10.3-2] [MQTT-2.2.1-3] [MQTT-4.13.1-1]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.refusal() in codes


async def test_no_local_of_a_shared_subscription(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.8.3-4]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Subscribe(1, (("$share/group/a", NO_LOCAL),)))
        assert await peer.refusal() == PROTOCOL_ERROR


@pytest.mark.parametrize("topic_filter", ["a/#/b", "a#", "a/b#", "a+", "+a", "a/+b/c", "##", ""])
async def test_filters_that_are_none(shared_gateway: GatewayProcess, topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]: refused one by one, or with the connection."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Subscribe(1, ((topic_filter, 0),)))
        received = await peer.receive()
        if isinstance(received, Suback):
            assert received.reason_codes == (TOPIC_FILTER_INVALID,)
        else:
            assert getattr(received, "reason_code", None) in (MALFORMED, PROTOCOL_ERROR, TOPIC_FILTER_INVALID)


@pytest.mark.parametrize("topic_filter", ["$share/group/a", "$share/g/#", "$share/g/kp1/app_v1/+/t/#"])
async def test_shared_subscriptions_are_refused(shared_gateway: GatewayProcess, topic_filter: str) -> None:
    """[MQTT-3.8.4-7], 3.2.2.3.13: CONNACK says that there are none. The other filter is granted."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        assert await peer.subscribe(topic_filter, "a") == (SHARED_NOT_SUPPORTED, 0)


@pytest.mark.parametrize(
    "topic_filter", ["$share", "$share/", "$share//a", "$share/g", "$share/+/a", "$share/#/a"]
)
async def test_shared_subscriptions_without_a_name_or_filter(
    shared_gateway: GatewayProcess, topic_filter: str
) -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]: refused in any case."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Subscribe(1, ((topic_filter, 0),)))
        received = await peer.receive()
        codes = (
            received.reason_codes if isinstance(received, Suback) else (getattr(received, "reason_code", 0),)
        )
        assert all(code >= 0x80 for code in codes) or topic_filter == "$share"


async def test_many_filters_are_answered_in_their_order(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-2.2.1-6]"""
    filters = tuple((f"filter/{number}", number % 3) for number in range(200))
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Subscribe(0xABCD, filters))
        assert await peer.expect(Suback) == Suback(0xABCD, tuple(number % 3 for number in range(200)))


async def test_unsubscribing(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6]
    [MQTT-4.7.3-4]: compared character by character; each filter is answered."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.subscribe("a/#", "b")
        await peer.send(Unsubscribe(9, ("a/+", "b", "b", "a/#", "A/#")))
        none = NO_SUBSCRIPTION_EXISTED
        assert await peer.expect(Unsuback) == Unsuback(9, (none, 0, none, 0, none))


async def identified(peer: Mqtt5Peer, cluster: Cluster, token: str, **options: int) -> None:
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", **options)
    await cluster.connectivity("connected", token)


async def pushed(peer: Mqtt5Peer, cluster: Cluster, token: str) -> Publish:
    await cluster.push(token, b"push")
    publish = await peer.expect(Publish)
    if publish.qos == 1:
        await peer.send(Puback(publish.packet_id))
    return publish


async def test_after_unsubscribing_the_qos_is_no_longer_raised(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.10.4-2] [MQTT-3.10.4-3]: what is in flight is completed."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, options=1)
        await cluster.push(token, b"in flight")
        publish = await peer.expect(Publish)
        await peer.send(Unsubscribe(2, (f"kp1/app_v1/dcx/{token}/#",)))
        assert await peer.expect(Unsuback) == Unsuback(2, (0,))
        await peer.send(Puback(publish.packet_id))
        assert (await pushed(peer, cluster, token)).qos == 0


@pytest.mark.parametrize("identifier", [1, 127, 128, 16384, 268_435_455])
@pytest.mark.parametrize("qos", [0, 1])
async def test_the_subscription_identifier_is_returned(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, identifier: int, qos: int
) -> None:
    """[MQTT-3.3.4-3] [MQTT-3.3.2-3]"""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, options=qos, identifier=identifier)
        publish = await pushed(peer, cluster, token)
    assert publish.all(P.SUBSCRIPTION_IDENTIFIER) == [identifier]
    assert publish.topic == f"kp1/app_v1/dcx/{token}/json/status"


async def test_overlapping_subscriptions(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.4-2] [MQTT-3.3.4-4] [MQTT-3.3.4-5]: one copy, the best QoS, the identifiers of all that have one."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.subscribe("#", options=0, identifier=5)
        await peer.subscribe(f"kp1/app_v1/dcx/{token}/json/status", options=2)
        await identified(peer, cluster, token, options=1, identifier=7)
        publish = await pushed(peer, cluster, token)
        assert publish.qos == 2
        assert sorted(publish.all(P.SUBSCRIPTION_IDENTIFIER)) == [5, 7]
        assert await peer.until_pingresp() == []


async def test_a_subscription_is_replaced(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.8.4-8]: with its QoS and its identifier, or without one."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, options=1, identifier=3)
        assert (await pushed(peer, cluster, token)).all(P.SUBSCRIPTION_IDENTIFIER) == [3]
        await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=0, identifier=4)
        publish = await pushed(peer, cluster, token)
        assert (publish.all(P.SUBSCRIPTION_IDENTIFIER), publish.qos) == ([4], 0)
        await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=1)
        publish = await pushed(peer, cluster, token)
        assert (publish.all(P.SUBSCRIPTION_IDENTIFIER), publish.qos) == ([], 1)


async def test_the_identifier_stays_with_the_session(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.1.0-1], 3.8.2.1.2: as the subscription does."""
    token = new_token()
    kept = ((P.SESSION_EXPIRY_INTERVAL, 60),)
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=kept) as peer:
        await identified(peer, cluster, token, options=1, identifier=9)
        await peer.abort()
        await cluster.connectivity("disconnected", token)
    await cluster.push(token, b"meanwhile")
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=kept)).session_present
        publish = await peer.expect(Publish)
        assert publish.all(P.SUBSCRIPTION_IDENTIFIER) == [9]
