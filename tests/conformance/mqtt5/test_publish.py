"""PUBLISH from the client: MQTT 5.0, section 3.3, and what a message becomes on NATS."""

from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.support.mqtt5.peer import mqtt5_client
from tests.support.mqtt5.properties import Property

NewToken = Callable[[], str]
P = Property

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
TOPIC_NAME_INVALID = 0x90
PAYLOAD_FORMAT_INVALID = 0x99
RETAIN_NOT_SUPPORTED = 0x9A
WRONG_TOPIC = {MALFORMED, PROTOCOL_ERROR, TOPIC_NAME_INVALID}


@pytest.mark.parametrize(
    ("vector", "codes"),
    [
        # MQTT-3.3.1-4: QoS 3
        ("36 06 0001 61 0001 00", {MALFORMED}),
        # MQTT-3.3.1-2: DUP at QoS 0
        ("38 04 0001 61 00", {MALFORMED, PROTOCOL_ERROR}),
        # MQTT-2.2.1-3: packet identifier 0
        ("32 06 0001 61 0000 00", {MALFORMED, PROTOCOL_ERROR}),
        ("34 06 0001 61 0000 00", {MALFORMED, PROTOCOL_ERROR}),
        # MQTT-3.3.2-2, MQTT-4.7.0-1: wildcards
        ("30 04 0001 23 00", WRONG_TOPIC),
        ("30 04 0001 2b 00", WRONG_TOPIC),
        ("30 06 0003 612f23 00", WRONG_TOPIC),
        ("30 06 0003 61232f 00", WRONG_TOPIC),
        # MQTT-3.3.2-1, MQTT-1.5.4-1, MQTT-4.7.3-2: no UTF-8, and U+0000
        ("30 04 0001 ff 00", WRONG_TOPIC),
        ("30 05 0002 c0af 00", WRONG_TOPIC),
        ("30 06 0003 eda080 00", WRONG_TOPIC),
        ("30 07 0004 f4908080 00", WRONG_TOPIC),
        ("30 05 0002 6100 00", WRONG_TOPIC),
        # MQTT-4.7.3-1: neither topic nor alias
        ("30 03 0000 00", {PROTOCOL_ERROR}),
        ("32 05 0000 0001 00", {PROTOCOL_ERROR}),
        # MQTT-3.3.4-6: a Subscription Identifier
        ("30 06 0001 61 02 0b 01", {PROTOCOL_ERROR, MALFORMED}),
        # MQTT-3.3.2-14: wildcards in the Response Topic; an empty one
        ("30 08 0001 61 04 08 0001 23", {PROTOCOL_ERROR}),
        ("30 08 0001 61 04 08 0001 2b", {PROTOCOL_ERROR}),
        ("30 07 0001 61 03 08 0000", {PROTOCOL_ERROR, MALFORMED, TOPIC_NAME_INVALID}),
    ],
)
async def test_malformed(shared_gateway: GatewayProcess, vector: str, codes: set[int]) -> None:
    """[MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-2.2.1-2] [MQTT-2.2.1-3] [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-3.3.2-14]
    [MQTT-3.3.4-6] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.13.1-1] [MQTT-1.5.4-1] [MQTT-1.5.4-2]"""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(bytes.fromhex(vector))
        assert await peer.refusal() in codes


async def test_a_retained_message_is_refused(shared_gateway: GatewayProcess) -> None:
    """[MQTT-3.2.2-14] [MQTT-3.3.1-5]: CONNACK says that there are none."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish("outside", b"x", retain=True))
        assert await peer.refusal() == RETAIN_NOT_SUPPORTED


@pytest.mark.parametrize("character", ["\u0001", "\u001f", "\u007f", "\u009f"])
async def test_control_characters(shared_gateway: GatewayProcess, character: str) -> None:
    """1.5.4: a server may refuse them, and this one does, unless `refuse-control-characters` is false."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(f"outside/{character}"))
        assert await peer.refusal() in WRONG_TOPIC


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_every_qos(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, qos: int
) -> None:
    """[MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]: the answer of the QoS."""
    token = new_token()
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(f"kp1/app_v1/dcx/{token}/json", b"payload", qos, 7 if qos else 0))
        if qos == 1:
            assert await peer.receive() == Puback(7)
        elif qos == 2:
            assert await peer.receive() == Pubrec(7)
            await peer.send(Pubrel(7))
            assert await peer.receive() == Pubcomp(7)
        request = await cluster.request()
        assert await peer.until_pingresp() == []
    assert (request.fields["payload"], request.fields["resourcePath"]) == (b"payload", "/json")
    assert request.fields["timeout"] == 0


async def test_every_property_of_a_message(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-4] [MQTT-3.3.2-17] [MQTT-3.3.2-20]: 4/ESP has no place for most of them, and drops them."""
    properties = (
        (P.PAYLOAD_FORMAT_INDICATOR, 1), (P.MESSAGE_EXPIRY_INTERVAL, 60), (P.CONTENT_TYPE, "application/json"),
        (P.RESPONSE_TOPIC, "response"), (P.CORRELATION_DATA, b"\0\xff"), (P.USER_PROPERTY, ("a", "b")),
        (P.USER_PROPERTY, ("a", "c")), (P.TOPIC_ALIAS, 1),
    )  # fmt: skip
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(topic, "text \u00fc".encode(), 1, 1, properties=properties))
        assert await peer.expect(Puback) == Puback(1)
    assert (await cluster.request()).fields["payload"] == "text \u00fc".encode()


@pytest.mark.parametrize("indicator", [None, 0])
async def test_a_payload_is_any_bytes(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, indicator: int | None
) -> None:
    """3.3.2.3.2: unless the client says that it is text."""
    properties = () if indicator is None else ((P.PAYLOAD_FORMAT_INDICATOR, indicator),)
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(f"kp1/app_v1/dcx/{new_token()}/json", b"\xff\0", properties=properties))
        assert (await cluster.request()).fields["payload"] == b"\xff\0"


async def test_a_text_that_is_none(shared_gateway: GatewayProcess) -> None:
    """3.3.2.3.2: a server may check it, and this one does."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish("outside", b"\xff", properties=((P.PAYLOAD_FORMAT_INDICATOR, 1),)))
        assert await peer.refusal() == PAYLOAD_FORMAT_INVALID


async def test_message_expiry_becomes_the_timeout(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-3.3.2-6]: in milliseconds, of 4/ESP; 0 means no limit there, and the least time here."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for seconds in (1, 60, 0xFFFFFFFF):
            await peer.send(Publish(topic, properties=((P.MESSAGE_EXPIRY_INTERVAL, seconds),)))
        await peer.send(Publish(topic))
        requests = await cluster.next_requests(4)
    assert [request.fields["timeout"] for request in requests] == [1000, 60_000, 0xFFFFFFFF * 1000, 0]


async def test_a_message_again_is_a_new_one_after_puback(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.3.2-5] [MQTT-3.3.1-3]: whatever DUP says."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for dup in (False, True, False):
            await peer.send(Publish(topic, b"same", 1, 5, dup))
            assert await peer.expect(Puback) == Puback(5)
    assert len(await cluster.next_requests(3)) == 3


async def test_qos_2_is_forwarded_once(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken
) -> None:
    """[MQTT-4.3.3-10] [MQTT-4.3.3-12]: until PUBREL, a repetition is acknowledged and not forwarded."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for dup in (False, True, True):
            await peer.send(Publish(topic, b"once", 2, 5, dup))
            assert await peer.expect(Pubrec) == Pubrec(5)
        await peer.send(Pubrel(5))
        assert await peer.expect(Pubcomp) == Pubcomp(5)
        await peer.send(Publish(topic, b"next", 2, 5))
        assert await peer.expect(Pubrec) == Pubrec(5)
        requests = await cluster.next_requests(2)
        assert [request.fields["payload"] for request in requests] == [b"once", b"next"]


async def test_order_is_kept(shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken) -> None:
    """[MQTT-4.6.0-5] [MQTT-4.6.0-6]: over all QoS, with and without alias and properties."""
    topic = f"kp1/app_v1/dcx/{new_token()}/json"
    alias = (P.TOPIC_ALIAS, 2)
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish(topic, b"0", properties=(alias,)))
        await peer.send(
            b"".join(
                codec.encode(
                    Publish(
                        "" if number % 2 else topic,
                        b"%d" % number,
                        number % 3,
                        number if number % 3 else 0,
                        properties=(alias,) if number % 2 else (),
                    )
                )
                for number in range(1, 200)
            )
        )
        requests = await cluster.next_requests(200)
    assert [request.fields["payload"] for request in requests] == [b"%d" % number for number in range(200)]


async def test_topics_outside_kp1_are_acknowledged(shared_gateway: GatewayProcess) -> None:
    """[MQTT-4.7.3-4]: topics are compared byte by byte."""
    topics = ["a", "/kp1/app_v1/dcx/t/json", "KP1/app_v1/dcx/t/json", "$SYS/x", "kp1"]
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        for number, topic in enumerate(topics, start=1):
            await peer.send(Publish(topic, b"x", 1, number))
            puback = await peer.expect(Puback)
            assert puback.packet_id == number
            assert puback.reason_code in (0x00, 0x10)


async def test_the_longest_topic(shared_gateway: GatewayProcess) -> None:
    """[MQTT-4.7.3-3]: its length is of two bytes."""
    async with mqtt5_client(shared_gateway.mqtt_port) as peer:
        await peer.send(Publish("t" * 65535, b"x", 1, 1))
        assert (await peer.expect(Puback)).packet_id == 1
