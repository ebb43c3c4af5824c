"""Reason codes of PUBACK, PUBREC, PUBREL and PUBCOMP: MQTT 5.0, sections 3.4 to 3.7 and 4.3; 1/KP, errors."""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.support.mqtt5.peer import Mqtt5Peer, mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property
from tests.support.nats import NatsServer

NewToken = Callable[[], str]
P = Property

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
UNSPECIFIED = 0x80
NOT_AUTHORIZED = 0x87
TOPIC_NAME_INVALID = 0x90
IDENTIFIER_NOT_FOUND = 0x92


@pytest.fixture(scope="module")
def strict_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway that knows one token."""
    with GatewayProcess(shared_nats.url, tokens={"app_v1": {"known": "endpoint"}}) as process:
        yield process


NO_REPLICA = "kp1/app_v1/tsx/{token}/json"
"""Nobody is there for this extension."""


@pytest.mark.parametrize(
    ("topic", "code", "status"),
    [
        (NO_REPLICA, UNSPECIFIED, 503),
        ("kp1/app_v1/none/{token}/json", TOPIC_NAME_INVALID, 404),
        ("kp1/app_v9/dcx/{token}/json", TOPIC_NAME_INVALID, 404),
    ],
)
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refusal_is_told_in_the_acknowledgement(
    shared_gateway: GatewayProcess, new_token: NewToken, topic: str, code: int, status: int, qos: int
) -> None:
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1]: and there only; with a request ID the error is published as well."""
    topic = topic.format(token=new_token())
    kind: type[Puback | Pubrec] = Puback if qos == 1 else Pubrec
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(topic, b"x", qos, 1))
        told = await peer.expect(kind)
        assert (told.packet_id, told.reason_code) == (1, code)
        assert told.get(P.REASON_STRING)
        assert await peer.until_pingresp() == []
        await peer.send(Publish(f"{topic}/9", b"x", qos, 2))
        received = [await peer.receive(), await peer.receive()]
    (told,) = (packet for packet in received if isinstance(packet, kind))
    (error,) = (packet for packet in received if isinstance(packet, Publish))
    assert (told.packet_id, told.reason_code) == (2, code)
    assert (error.topic, json.loads(error.payload)["statusCode"]) == (f"{topic}/9/error", status)


async def test_an_unknown_token_is_not_authorized(strict_gateway: GatewayProcess) -> None:
    """[MQTT-3.4.2-1]"""
    async with mqtt5_client(strict_gateway.mqtt_port) as peer:
        await peer.send(Publish("kp1/app_v1/dcx/unknown/json", b"x", 1, 1))
        assert (await peer.expect(Puback)).reason_code == NOT_AUTHORIZED


async def test_a_refusal_at_qos_0_is_silent(shared_gateway: GatewayProcess, new_token: NewToken) -> None:
    """[MQTT-3.3.4-1]: there is no acknowledgement to tell it in."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(NO_REPLICA.format(token=new_token()), b"x"))
        assert await peer.until_pingresp() == []


@pytest.mark.parametrize("qos", [1, 2])
async def test_no_reason_string_to_who_does_not_want_it(
    shared_gateway: GatewayProcess, new_token: NewToken, qos: int
) -> None:
    """[MQTT-3.1.2-29]"""
    plain = ((P.REQUEST_PROBLEM_INFORMATION, 0),)
    async with mqtt5_client(shared_gateway.mqtt_port, properties=plain) as peer:
        await peer.send(Publish(NO_REPLICA.format(token=new_token()), b"x", qos, 1))
        assert await peer.receive() == (Puback if qos == 1 else Pubrec)(1, UNSPECIFIED)


@pytest.mark.parametrize("qos", [1, 2])
async def test_no_reason_string_that_makes_the_packet_too_large(
    shared_gateway: GatewayProcess, new_token: NewToken, qos: int
) -> None:
    """[MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.1.2-24]"""
    maximum = 24
    small = ((P.MAXIMUM_PACKET_SIZE, maximum),)
    async with mqtt5_client(shared_gateway.mqtt_port, "small", properties=small) as peer:
        await peer.send(Publish(NO_REPLICA.format(token=new_token()), b"x", qos, 1))
        assert await peer.receive() == (Puback if qos == 1 else Pubrec)(1, UNSPECIFIED)
        assert max(peer.bytes_received) <= maximum


async def test_a_refused_qos_2_message_is_over(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.3.3-9] [MQTT-4.4.0-2]: its packet identifier is free, without PUBREL."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(NO_REPLICA.format(token=new_token()), b"refused", 2, 1))
        assert (await peer.expect(Pubrec)).reason_code == UNSPECIFIED
        await peer.send(Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"new", 2, 1))
        assert await peer.expect(Pubrec) == Pubrec(1)
        assert (await cluster.request()).fields["payload"] == b"new"
        await peer.send(Pubrel(1))
        assert await peer.expect(Pubcomp) == Pubcomp(1)


async def test_pubrel_of_nothing(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.7.2-1] [MQTT-4.3.3-11]: it is answered, and the connection goes on; a repetition is no error."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Pubrel(77), Pubrel(78, IDENTIFIER_NOT_FOUND))
        for packet_id in (77, 78):
            pubcomp = await peer.expect(Pubcomp)
            assert pubcomp.packet_id == packet_id
            assert pubcomp.reason_code in (0, IDENTIFIER_NOT_FOUND)


async def test_pubrec_of_nothing(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.6.2-1]: likewise."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Pubrec(77))
        pubrel = await peer.expect(Pubrel)
        assert pubrel.packet_id == 77
        assert pubrel.reason_code in (0, IDENTIFIER_NOT_FOUND)


@pytest.mark.parametrize(
    "vector",
    [
        "40 02 0009",
        "40 03 0009 00",
        "40 03 0009 10",
        "40 04 0009 00 00",
        "40 04 0009 80 00",
        "40 0b 0009 97 07 1f 0004 66756c6c",
        "40 0b 0009 00 07 26 0001 61 0001 62",
        "70 02 0009",
        "70 03 0009 92",
        "70 04 0009 00 00",
    ],
)
async def test_forms_of_an_acknowledgement(shared_gateway: GatewayProcess, vector: str) -> None:
    """[MQTT-2.2.1-5], 3.4.2.1: reason code and properties may be left out. What answers nothing is ignored."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.until_pingresp() == []


@pytest.mark.parametrize(
    "vector",
    [
        "40 03 0001 01",
        "40 03 0001 11",
        "40 03 0001 92",
        "40 03 0001 ff",
        "50 03 0001 01",
        "50 03 0001 92",
        "62 03 0001 10",
        "62 03 0001 80",
        "70 03 0001 10",
        "70 03 0001 97",
    ],
)
async def test_reason_codes_that_do_not_exist(shared_gateway: GatewayProcess, vector: str) -> None:
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.refusal() in (MALFORMED, PROTOCOL_ERROR)


# What the client says of the gateway's messages


async def identified(peer: Mqtt5Peer, cluster: Cluster, token: str, qos: int) -> None:
    await peer.subscribe(f"kp1/app_v1/dcx/{token}/#", options=qos)
    await cluster.connectivity("connected", token)


async def test_a_message_that_the_client_refuses_is_not_sent_again(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.4.0-2] [MQTT-4.3.3-4]: at QoS 2 no PUBREL follows."""
    kept = ((P.SESSION_EXPIRY_INTERVAL, 60),)
    for qos, kind in ((1, Puback), (2, Pubrec)):
        token = new_token()
        async with mqtt5_client(shared_gateway.mqtt_port, token, properties=kept) as peer:
            await identified(peer, cluster, token, qos)
            await cluster.push(token, b"refused")
            publish = await peer.expect(Publish)
            await peer.send(kind(publish.packet_id, UNSPECIFIED))
            assert await peer.until_pingresp() == []
            await cluster.push(token, b"next")
            assert (await peer.expect(Publish)).payload == b"next"
            await peer.abort()
        async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
            assert (await peer.connect(token, clean_start=False, properties=kept)).session_present
            (again,) = await peer.until_pingresp()
            assert isinstance(again, Publish)
            assert (again.payload, again.dup) == (b"next", True)


async def test_qos_2_to_the_client(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-4.3.3-6] [MQTT-2.2.1-4] [MQTT-2.2.1-5]: no PUBLISH after PUBREL."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, 2)
        await cluster.push(token, b"one")
        publish = await peer.expect(Publish)
        assert (publish.qos, publish.dup, publish.payload) == (2, False, b"one")
        for _ in range(2):
            await peer.send(Pubrec(publish.packet_id))
            assert await peer.expect(Pubrel) == Pubrel(publish.packet_id)
        await peer.send(Pubcomp(publish.packet_id))
        assert await peer.until_pingresp() == []


async def test_packet_identifiers_of_the_gateway_differ(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-3] [MQTT-4.3.3-1]: as long as they are in flight."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, 1)
        for _ in range(10):
            await cluster.push(token, b"x")
        identifiers = [(await peer.expect(Publish)).packet_id for _ in range(10)]
    assert len(set(identifiers)) == 10
    assert 0 not in identifiers


async def test_qos_0_to_the_client(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.3.1-1] [MQTT-3.3.1-2] [MQTT-2.2.1-2]: without DUP, retain and packet identifier."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await identified(peer, cluster, token, 0)
        await cluster.push(token, b"x")
        publish = await peer.expect(Publish)
    assert (publish.qos, publish.packet_id, publish.dup, publish.retain) == (0, 0, False, False)
