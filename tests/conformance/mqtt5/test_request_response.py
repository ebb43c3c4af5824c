"""Response Topic and Correlation Data: MQTT 5.0, sections 3.3.2.3.5, 3.3.2.3.6 and 4.10."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5.packets import Puback, Publish, Pubrec
from tests.support.mqtt5.peer import mqtt5_client, mqtt5_peer
from tests.support.mqtt5.properties import Property

NewToken = Callable[[], str]
P = Property


def request(topic: str, response_topic: str, data: bytes | None = None, **fields: Any) -> Publish:
    properties: tuple[tuple[Property, Any], ...] = ((P.RESPONSE_TOPIC, response_topic),)
    if data is not None:
        properties += ((P.CORRELATION_DATA, data),)
    return Publish(topic, b"request", properties=(*fields.pop("properties", ()), *properties), **fields)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("data", [None, b"", b"\x00\xffbinary", b"x" * 1000])
async def test_the_answer_goes_to_the_response_topic(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, qos: int, data: bytes | None
) -> None:
    """[MQTT-3.3.2-15] [MQTT-3.3.2-16]: and only there, with the Correlation Data, without a subscription."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(request(topic, "my/response", data, qos=qos, packet_id=1 if qos else 0))
        if qos:
            assert (await peer.expect(Puback if qos == 1 else Pubrec)).reason_code == 0  # type: ignore[attr-defined]
        await cluster.answer(await cluster.request(), b"answer", reasonPhrase="Fine")
        publish = await peer.expect(Publish)
        assert (publish.topic, publish.payload, publish.qos) == ("my/response", b"answer", qos)
        assert publish.get(P.CORRELATION_DATA) == data
        assert publish.all(P.USER_PROPERTY) == [("statusCode", "200"), ("reasonPhrase", "Fine")]
        assert publish.get(P.RESPONSE_TOPIC) is None


async def test_an_error_goes_to_the_response_topic(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """4.10: its status is a User Property, its payload that of 1/KP."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(request(topic, "response", b"id"))
        await cluster.answer(await cluster.request(), None, statusCode=404, reasonPhrase="None of these")
        publish = await peer.expect(Publish)
    assert (publish.topic, publish.get(P.CORRELATION_DATA)) == ("response", b"id")
    assert publish.all(P.USER_PROPERTY) == [("statusCode", "404"), ("reasonPhrase", "None of these")]
    assert json.loads(publish.payload) == {"statusCode": 404, "reasonPhrase": "None of these"}


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_refusal_goes_to_the_response_topic(
    shared_gateway: GatewayProcess, new_token: NewToken, qos: int
) -> None:
    """4.10: and is told in PUBACK."""
    topic = f"kp1/app_v1/tsx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(request(topic, "response", b"id", qos=qos, packet_id=qos))
        received = [await peer.receive() for _ in range(1 + qos)]
        (publish,) = (packet for packet in received if isinstance(packet, Publish))
        assert (publish.topic, publish.get(P.CORRELATION_DATA)) == ("response", b"id")
        assert publish.all(P.USER_PROPERTY)[0] == ("statusCode", "503")
        assert [packet.reason_code for packet in received if isinstance(packet, Puback)] == [0x80] * qos
        assert await peer.until_pingresp() == []


async def test_a_response_topic_goes_with_its_message(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-15] [MQTT-3.3.2-16]: many outstanding, answered in another order, beside messages without one."""
    base = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for number in range(20):
            await peer.send(
                request(base, f"response/{number}", b"%d" % number)
                if number % 2
                else Publish(f"{base}/{number}")
            )
        requests = await cluster.next_requests(20)
        for number, asked in reversed(list(enumerate(requests))):
            await cluster.answer(asked, b"answer %d" % number)
        for number in range(19, -1, -1):
            publish = await peer.expect(Publish)
            assert publish.payload == b"answer %d" % number
            assert publish.topic == (f"response/{number}" if number % 2 else f"{base}/{number}/status")
            assert publish.get(P.CORRELATION_DATA) == (b"%d" % number if number % 2 else None)


async def test_nobody_else_gets_the_answer(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """4.10: it is delivered to the connection that asked, whoever else subscribes to the topic or speaks for it."""
    token, port = new_token(), shared_gateway.mqtt_port
    topic = f"kp1/app_v1/dcx/{token}/json"
    async with mqtt5_client(port) as peer, mqtt5_client(port) as other:
        await other.subscribe("#", "response", f"kp1/app_v1/dcx/{token}/#", options=1)
        await other.send(Publish(topic, b"the same endpoint", 1, 1))
        assert await other.expect(Puback) == Puback(1)
        await peer.send(request(topic, "response"))
        asked = (await cluster.next_requests(2))[1]
        await cluster.answer(asked, b"answer")
        assert (await peer.expect(Publish)).payload == b"answer"
        assert await other.until_pingresp() == []


async def test_after_a_reconnect_the_answer_is_dropped_or_waits(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """4.10: it never goes to another client's connection."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(request(f"kp1/app_v1/dcx/{token}/json", "response"))
        asked = await cluster.request()
    async with mqtt5_client(shared_gateway.mqtt_port) as other:
        await other.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"", 1, 1))
        await other.expect(Puback)
        await cluster.answer(asked, b"answer")
        assert not any(
            isinstance(packet, Publish) and packet.topic == "response"
            for packet in await other.until_pingresp()
        )


async def test_the_response_topic_beats_the_request_id(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """4.10: the request has both; the answer goes to the Response Topic only."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json/7"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(request(topic, "response"))
        asked = await cluster.request()
        assert asked.fields["requestId"] == 7
        await cluster.answer(asked, b"answer")
        assert (await peer.expect(Publish)).topic == "response"
        assert await peer.until_pingresp() == []


async def test_a_response_topic_with_a_topic_alias(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """3.3.2.3.4: properties are of one message, an alias is of the topic only."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    alias = ((P.TOPIC_ALIAS, 1),)
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(
            request(topic, "one", b"1", properties=alias), request("", "two", b"2", properties=alias)
        )
        for asked in await cluster.next_requests(2):
            await cluster.answer(asked, b"answer")
        received = [await peer.expect(Publish) for _ in range(2)]
    assert [(each.topic, each.get(P.CORRELATION_DATA)) for each in received] == [("one", b"1"), ("two", b"2")]


async def test_an_answer_that_is_a_subscription_as_well_comes_once(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.4-3]: with the subscription's identifier, and at most its QoS."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.subscribe("response/#", options=0, identifier=8)
        await peer.send(request(topic, "response/1", qos=1, packet_id=1))
        await peer.expect(Puback)
        await cluster.answer(await cluster.request(), b"answer")
        publish = await peer.expect(Publish)
        assert (publish.qos, publish.all(P.SUBSCRIPTION_IDENTIFIER)) == (0, [8])
        assert await peer.until_pingresp() == []


async def test_outstanding_requests_are_bounded(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """What a client can make the gateway remember has an end; the connection and its messages go on."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for _ in range(30):
            await peer.send(*(request(topic, "r" * 200, b"d" * 200) for _ in range(100)))
        assert not any(packet is None for packet in await peer.until_pingresp())
        await peer.send(Publish(topic, b"still there", 1, 1))
        while not isinstance(await peer.receive(), Puback):
            pass


async def test_response_information_is_a_topic_of_one_s_own(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.1.2-28]: what CONNACK proposes works."""
    async with mqtt5_peer(shared_gateway.mqtt_port) as peer:
        connack = await peer.connect("asks", properties=((P.REQUEST_RESPONSE_INFORMATION, 1),))
        response_topic = f"{connack.get(P.RESPONSE_INFORMATION)}/1"
        await peer.send(request(f"kp1/app_v1/dcx/{new_token()}/json", response_topic))
        await cluster.answer(await cluster.request(), b"answer")
        assert (await peer.expect(Publish)).topic == response_topic
