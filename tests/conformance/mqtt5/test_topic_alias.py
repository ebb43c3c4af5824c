"""Topic aliases, both ways: MQTT 5.0, section 3.3.2.3.4."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5.packets import Disconnect, Puback, Publish
from tests.support.mqtt5.peer import Mqtt5Peer, mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property
from tests.support.nats import NatsServer

NewToken = Callable[[], str]
P = Property

PROTOCOL_ERROR = 0x82
TOPIC_ALIAS_INVALID = 0x94
MAXIMUM = 64
"""What the gateway allows if nothing else is configured."""


@pytest.fixture(scope="module")
def without_aliases(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway that allows none."""
    changes = {"kaa": {"kpc": {"transports": {"mqtt": {"topic-alias-maximum": 0}}}}}
    with GatewayProcess(shared_nats.url, changes) as process:
        yield process


def aliased(alias: int, topic: str = "", payload: bytes = b"", **fields: object) -> Publish:
    return Publish(topic, payload, properties=((P.TOPIC_ALIAS, alias),), **fields)  # type: ignore[arg-type]


async def identified(peer: Mqtt5Peer, cluster: Cluster, token: str, qos: int = 1) -> None:
    """Subscribe to an endpoint's pushes and wait until they would arrive."""
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=qos)
    await cluster.connectivity("connected", token)


# From the client


async def test_every_alias_up_to_the_maximum(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-12]: each is its own topic, here of its own endpoint."""
    tokens = [new_token() for _ in range(MAXIMUM)]
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for alias, token in enumerate(tokens, start=1):
            await peer.send(aliased(alias, f"kp1/app_v1/dcx/{token}/json", b"set"))
        # Messages that wait for an identity may be overtaken by those of other tokens.
        await cluster.next_requests(MAXIMUM)
        for alias in range(MAXIMUM, 0, -1):
            await peer.send(aliased(alias, payload=b"%d" % alias))
        requests = await cluster.next_requests(2 * MAXIMUM)
    assert {request.fields["endpointId"] for request in requests[:MAXIMUM]} == set(tokens)
    assert [request.fields["endpointId"] for request in requests[MAXIMUM:]] == [*reversed(tokens)]
    assert [request.fields["payload"] for request in requests[MAXIMUM:]] == [
        b"%d" % alias for alias in range(MAXIMUM, 0, -1)
    ]


@pytest.mark.parametrize("alias", [0, MAXIMUM + 1, 65535])
@pytest.mark.parametrize("topic", ["", "outside"])
async def test_an_alias_that_is_not_allowed(shared_gateway: GatewayProcess, alias: int, topic: str) -> None:
    """[MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.2.2-17]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(aliased(alias, topic))
        assert await peer.refusal() == TOPIC_ALIAS_INVALID


async def test_no_alias_where_none_is_allowed(without_aliases: GatewayProcess) -> None:
    """[MQTT-3.2.2-18]"""
    async with mqtt5_peer(without_aliases.mqtt_port) as peer:
        assert not (await peer.connect()).get(P.TOPIC_ALIAS_MAXIMUM)
        await peer.send(aliased(1, "outside"))
        assert await peer.refusal() == TOPIC_ALIAS_INVALID


async def test_an_alias_that_was_not_set(shared_gateway: GatewayProcess) -> None:
    """[MQTT-4.13.1-1], 3.3.2.3.4: a protocol error."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(aliased(1, "outside"), aliased(2))
        assert await peer.refusal() in (PROTOCOL_ERROR, TOPIC_ALIAS_INVALID)


async def test_an_alias_may_be_set_anew(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-12]: it is the topic of the last PUBLISH with both."""
    one, other = new_token(), new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for number, token in enumerate((one, other, one)):
            await peer.send(aliased(1, f"kp1/app_v1/dcx/{token}/json"), aliased(1), aliased(1))
            requests = await cluster.next_requests(3 * number + 3)
    assert [request.fields["endpointId"] for request in requests] == [one] * 3 + [other] * 3 + [one] * 3


async def test_an_alias_of_a_message_that_goes_nowhere(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """An alias is set by a PUBLISH whose topic is not of 1/KP, or is refused, as well."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(
            aliased(1, "outside", qos=1, packet_id=1),
            aliased(1, qos=1, packet_id=2),
            aliased(2, f"kp1/app_v9/dcx/{new_token()}/json", qos=1, packet_id=3),
            aliased(2, qos=1, packet_id=4),
        )
        pubacks = [await peer.expect(Puback) for _ in range(4)]
    assert [puback.packet_id for puback in pubacks] == [1, 2, 3, 4]
    assert pubacks[0].reason_code == pubacks[1].reason_code < 0x80
    assert pubacks[2].reason_code == pubacks[3].reason_code >= 0x80


async def test_an_alias_with_a_request_id(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """The request ID is a part of the topic, and is that of each message with the alias."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(aliased(1, f"{topic}/41"), aliased(1), aliased(2, topic), aliased(2), aliased(1))
        requests = await cluster.next_requests(5)
        assert [request.fields["requestId"] for request in requests] == [41, 41, None, None, 41]
        await cluster.answer(requests[1], b"answer")
        assert (await peer.expect(Publish)).topic == f"{topic}/41/status"


async def test_an_alias_ends_with_its_connection(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-7]: even if the session goes on."""
    token = new_token()
    kept = ((P.SESSION_EXPIRY_INTERVAL, 60),)
    topic = f"kp1/app_v1/dcx/{token}/json"
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=kept) as peer:
        await peer.send(aliased(1, topic, qos=1, packet_id=1))
        assert await peer.expect(Puback) == Puback(1)
        await peer.send(Disconnect())
        await peer.until_closed()
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=kept)).session_present
        await peer.send(aliased(1))
        assert await peer.refusal() in (PROTOCOL_ERROR, TOPIC_ALIAS_INVALID)


async def test_aliases_are_of_one_connection(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-7]: another connection's alias 1 is another topic."""
    one, other = new_token(), new_token()
    port = shared_gateway.mqtt_port
    async with mqtt5_client(port) as first, mqtt5_client(port) as second:
        await first.send(aliased(1, f"kp1/app_v1/dcx/{one}/json", b"one"))
        await second.send(aliased(1, f"kp1/app_v1/dcx/{other}/json", b"other"))
        await cluster.next_requests(2)
        await first.send(aliased(1, payload=b"one again"))
        assert (await cluster.next_requests(1, after=2))[0].fields["endpointId"] == one


# To the client


async def pushed(peer: Mqtt5Peer, cluster: Cluster, token: str, path: str) -> Publish:
    await cluster.push(token, b"push", resourcePath=path)
    return await peer.expect(Publish)


async def test_no_alias_to_who_allows_none(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-27]"""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token)
        for _ in range(3):
            publish = await pushed(peer, cluster, token, "/json")
            assert publish.get(P.TOPIC_ALIAS) is None
            assert publish.topic == f"kp1/app_v1/dcx/{token}/json/status"
            await peer.send(Puback(publish.packet_id))


@pytest.mark.parametrize("maximum", [1, 2, 65535])
@pytest.mark.parametrize("qos", [0, 1])
async def test_aliases_up_to_what_the_client_allows(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, maximum: int, qos: int
) -> None:
    """[MQTT-3.1.2-26] [MQTT-3.3.2-11] [MQTT-3.3.2-8]: topics that repeat get one, and the rest stays whole."""
    token = new_token()
    limit = ((P.TOPIC_ALIAS_MAXIMUM, maximum),)
    base = f"kp1/app_v1/dcx/{token}"
    async with mqtt5_client(shared_gateway.mqtt_port, properties=limit) as peer:
        await identified(peer, cluster, token, qos)
        aliases = set()
        short = 0
        for number in range(12):
            path = f"/path/{number % 4}"
            publish = await pushed(peer, cluster, token, path)
            assert peer.topic_of(publish) == f"{base}{path}/status"
            short += not publish.topic
            aliases.add(publish.get(P.TOPIC_ALIAS))
            if qos:
                await peer.send(Puback(publish.packet_id))
        assert short > 0 or maximum < 4
        assert max(alias or 0 for alias in aliases) <= maximum


async def test_an_alias_to_the_client_ends_with_the_connection(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-7] [MQTT-4.4.0-1]: what is sent again, and what comes first, has its whole topic."""
    token = new_token()
    properties = ((P.TOPIC_ALIAS_MAXIMUM, 10), (P.SESSION_EXPIRY_INTERVAL, 60))
    topic = f"kp1/app_v1/dcx/{token}/json/status"
    async with mqtt5_client(shared_gateway.mqtt_port, token, properties=properties) as peer:
        await identified(peer, cluster, token)
        for _ in range(3):
            assert peer.topic_of(await pushed(peer, cluster, token, "/json")) == topic
        await peer.abort()
        await cluster.connectivity("disconnected", token)
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        assert (await peer.connect(token, clean_start=False, properties=properties)).session_present
        again = [packet for packet in await peer.until_pingresp() if isinstance(packet, Publish)]
        assert [(peer.topic_of(publish), publish.dup) for publish in again] == [(topic, True)] * 3
