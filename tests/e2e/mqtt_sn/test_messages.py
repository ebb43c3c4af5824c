"""MQTT-SN with a client that goes step by step: connecting, topics, messages both ways, wills, discovery.

Source: MQTT-SN 1.2, section 6.
"""

import asyncio
import socket
from collections.abc import Callable

import pytest

from tests.e2e.mqtt_sn.conftest import SnGateway
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.mqtt_sn import (
    ACCEPTED,
    CLEAN,
    CONGESTION,
    CONNACK,
    DISCONNECT,
    DUP,
    GWINFO,
    INVALID_TOPIC_ID,
    NOT_SUPPORTED,
    PINGREQ,
    PINGRESP,
    PREDEFINED,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    QOS,
    REGACK,
    REGISTER,
    SEARCHGW,
    SHORT,
    SUBACK,
    UNSUBACK,
    WILL,
    WILLMSG,
    WILLMSGREQ,
    WILLMSGRESP,
    WILLMSGUPD,
    WILLTOPIC,
    WILLTOPICREQ,
    WILLTOPICRESP,
    WILLTOPICUPD,
    SnClient,
    acknowledgement,
    connect,
    message,
    number,
    publish,
    register,
    subscribe,
)
from tests.support.nats import NatsServer, free_port

NewToken = Callable[[], str]
GROUP = "239.255.77.1"


def topic_of(token: str, path: str = "/json") -> str:
    return f"kp1/app_v1/dcx/{token}{path}"


async def test_each_qos_with_a_registered_topic(
    device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect("dev")
    topic_id = await device.register(topic_of(token))
    device.send(publish(topic_id, b"0"))
    assert await device.ask(publish(topic_id, b"1", qos=1, message_id=5)) == (
        PUBACK,
        number(topic_id) + number(5) + b"\0",
    )
    assert await device.ask(publish(topic_id, b"2", qos=2, message_id=6)) == (PUBREC, number(6))
    # A PUBREC that was lost: the message is not forwarded again.
    assert await device.ask(publish(topic_id, b"2", qos=2, message_id=6, dup=True)) == (PUBREC, number(6))
    assert await device.ask(message(PUBREL, number(6))) == (PUBCOMP, number(6))
    requests = await cluster.next_requests(3)
    assert [each.fields["payload"] for each in requests] == [b"0", b"1", b"2"]
    assert {each.fields["endpointId"] for each in requests} == {token}
    assert await device.ask(message(DISCONNECT)) == (DISCONNECT, b"")


async def test_a_repetition_at_qos_1_is_acknowledged_and_not_forwarded(
    device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    await device.connect(new_token())
    puback = (PUBACK, number(1) + number(5) + b"\0")
    assert await device.ask(publish(1, b"a", qos=1, message_id=5, kind=PREDEFINED)) == puback
    assert await device.ask(publish(1, b"a", qos=1, message_id=5, kind=PREDEFINED, dup=True)) == puback
    # Another message under the same ID, and one that is sent again on purpose.
    assert await device.ask(publish(1, b"b", qos=1, message_id=5, kind=PREDEFINED, dup=True)) == puback
    assert await device.ask(publish(1, b"b", qos=1, message_id=5, kind=PREDEFINED)) == puback
    await cluster.next_requests(3)
    assert [each.fields["payload"] for each in cluster.requests] == [b"a", b"b", b"b"]


async def test_a_predefined_topic_needs_two_bytes_and_contains_the_client_id(
    device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    device.send(publish(1, b"{}", kind=PREDEFINED))
    assert (await cluster.request()).fields["endpointId"] == token


async def test_qos_minus_1_needs_no_connection(
    device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    device.send(publish(3, b"{}", kind=PREDEFINED, qos=-1))
    assert (await cluster.request()).fields["endpointId"] == "fixed"
    token = new_token()
    await device.connect(token)
    device.send(publish(1, b"{}", kind=PREDEFINED, qos=-1))
    await until(lambda: len(cluster.requests) == 2, "the message of a client with a connection")
    assert cluster.requests[1].fields["endpointId"] == token


async def test_qos_minus_1_without_a_topic_is_dropped(
    sn: SnGateway, device: SnClient, cluster: Cluster
) -> None:
    before = sn.count("events", "dropped", "mqtt_sn_unknown_topic_id")
    # A registered topic, one that needs a client ID, one that is not there, a wildcard.
    device.send(
        publish(1, b"", qos=-1),
        publish(1, b"", qos=-1, kind=PREDEFINED),
        publish(9, b"", qos=-1, kind=PREDEFINED),
        publish(b"+/", b"", qos=-1, kind=SHORT),
    )
    await until(
        lambda: sn.count("events", "dropped", "mqtt_sn_unknown_topic_id") == before + 4, "four messages"
    )
    assert cluster.requests == []


async def test_an_answer_comes_back(device: SnClient, cluster: Cluster, new_token: NewToken) -> None:
    token = new_token()
    await device.connect(token)
    topic_id = await device.register(topic_of(token, "/json/7"))
    assert (await device.ask(publish(topic_id, b"{}", qos=1, message_id=1)))[0] == PUBACK
    await cluster.answer(await cluster.request(), b"done")
    kind, body = await device.receive()
    assert kind == REGISTER
    answer_id, message_id = body[:2], body[2:4]
    assert body[4:].decode() == topic_of(token, "/json/7/status")
    device.send(message(REGACK, answer_id + message_id + b"\0"))
    kind, body = await device.receive()
    assert (kind, body[:3], body[5:]) == (PUBLISH, bytes([QOS[1]]) + answer_id, b"done")
    device.send(message(PUBACK, answer_id + body[3:5] + b"\0"))
    await device.silence()


async def test_a_push_to_a_topic_that_the_client_has_subscribed_to(
    device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    topic_id = await device.subscribe(topic_of(token, "/push/status").replace("push", "other"), qos=1)
    await device.subscribe(2, qos=1, message_id=10)
    await cluster.push(token, b"1", resourcePath="/other")
    kind, body = await device.receive()
    assert (kind, body[:3], body[5:]) == (PUBLISH, bytes([QOS[1]]) + number(topic_id), b"1")
    # Nothing else before this is acknowledged.
    await cluster.push(token, b"2", resourcePath="/push")
    await device.silence()
    device.send(acknowledgement(PUBACK, topic_id, int.from_bytes(body[3:5], "big")))
    kind, body = await device.receive()
    assert (kind, body[:3], body[5:]) == (PUBLISH, bytes([QOS[1] | PREDEFINED]) + number(2), b"2")


async def test_a_push_at_qos_2(device: SnClient, cluster: Cluster, new_token: NewToken) -> None:
    token = new_token()
    await device.connect(token)
    await device.subscribe(2, qos=2)
    await cluster.push(token, b"2", resourcePath="/push")
    kind, body = await device.receive()
    assert (kind, body[:3]) == (PUBLISH, bytes([QOS[2] | PREDEFINED]) + number(2))
    message_id = body[3:5]
    again = await device.receive()
    assert again == (PUBLISH, bytes([QOS[2] | PREDEFINED | DUP]) + body[1:])
    assert await device.ask(message(PUBREC, message_id)) == (PUBREL, message_id)
    assert await device.receive() == (PUBREL, message_id)  # sent again
    device.send(message(PUBCOMP, message_id))
    await device.silence()


async def test_a_client_that_does_not_answer_is_lost(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    await device.subscribe(topic_of(token, "/#"))
    await cluster.push(token, b"1", resourcePath="/push/x")
    first = await device.raw()
    assert first[1] == REGISTER
    assert await device.raw() == first
    assert await device.raw() == first
    assert await device.receive() == (DISCONNECT, b"")
    await until(lambda: sn.count("events", "closed", "mqtt_sn_unreachable") >= 1, "the end")


async def test_a_client_refuses_a_topic_or_does_not_know_its_id(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    await device.subscribe(topic_of(token, "/#"), qos=1)
    before = sn.count("events", "dropped", "mqtt_sn_refused_by_client")
    await cluster.push(token, b"1", resourcePath="/no")
    kind, body = await device.receive()
    assert kind == REGISTER
    device.send(acknowledgement(REGACK, 1, int.from_bytes(body[2:4], "big"), NOT_SUPPORTED))
    await until(lambda: sn.count("events", "dropped", "mqtt_sn_refused_by_client") == before + 1, "the end")
    topic_id = await device.subscribe(topic_of(token, "/yes/status"), qos=1, message_id=11)
    await cluster.push(token, b"2", resourcePath="/yes")
    kind, body = await device.receive()
    assert (kind, body[1:3]) == (PUBLISH, number(topic_id))
    message_id = int.from_bytes(body[3:5], "big")
    # The device has restarted, and tells that it does not know the topic ID.
    kind, body = await device.ask(acknowledgement(PUBACK, topic_id, message_id, INVALID_TOPIC_ID))
    assert (kind, body[:2], body[4:].decode()) == (REGISTER, number(topic_id), topic_of(token, "/yes/status"))
    kind, body = await device.ask(acknowledgement(REGACK, topic_id, int.from_bytes(body[2:4], "big")))
    assert (kind, body[5:]) == (PUBLISH, b"2")
    # A second time, the message is given up.
    device.send(acknowledgement(PUBACK, topic_id, message_id, INVALID_TOPIC_ID))
    await until(lambda: sn.count("events", "dropped", "mqtt_sn_refused_by_client") == before + 2, "the end")


async def test_wildcards_and_unsubscribe(device: SnClient, cluster: Cluster, new_token: NewToken) -> None:
    token = new_token()
    await device.connect(token)
    device.send(publish(2, b"", kind=PREDEFINED))  # so it knows predefined topics
    assert await device.subscribe(topic_of(token, "/+/status"), qos=1) == 0
    assert await device.ask(subscribe(12, topic_of(token, "/+/status"), undo=True)) == (UNSUBACK, number(12))
    await cluster.push(token, b"1", resourcePath="/push")
    kind, body = await device.receive()
    assert (kind, body[:3]) == (PUBLISH, bytes([QOS[0] | PREDEFINED]) + number(2))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (subscribe(3, "a/#/b"), (SUBACK, b"\0\0\0" + number(3) + bytes([NOT_SUPPORTED]))),
        (subscribe(3, 77), (SUBACK, b"\0\0\0" + number(3) + bytes([INVALID_TOPIC_ID]))),
        (register(4, "a/+"), (REGACK, number(0) + number(4) + bytes([NOT_SUPPORTED]))),
        (
            publish(99, b"x", qos=1, message_id=5),
            (PUBACK, number(99) + number(5) + bytes([INVALID_TOPIC_ID])),
        ),
        (publish(99, b"x"), (PUBACK, number(99) + number(0) + bytes([INVALID_TOPIC_ID]))),
        (
            publish(b"+a", b"x", qos=1, message_id=5, kind=SHORT),
            (PUBACK, b"+a" + number(5) + bytes([INVALID_TOPIC_ID])),
        ),
        (message(WILLMSGUPD, b"x"), (WILLMSGRESP, bytes([NOT_SUPPORTED]))),
        (message(WILLTOPICUPD, b"\0a/#"), (WILLTOPICRESP, bytes([NOT_SUPPORTED]))),
        (publish(b"ab", b"x", qos=1, message_id=5, kind=SHORT), (PUBACK, b"ab" + number(5) + b"\0")),
        (message(PINGREQ), (PINGRESP, b"")),
    ],
)
async def test_what_is_refused_leaves_the_client_connected(
    device: SnClient, request_: bytes, answer: tuple[int, bytes]
) -> None:
    await device.connect("dev")
    assert await device.ask(request_) == answer
    assert await device.ask(message(PINGREQ)) == (PINGRESP, b"")


async def test_who_may_connect(sn: SnGateway, device: SnClient) -> None:
    assert await device.ask(connect("dev", protocol_id=2)) == (CONNACK, bytes([NOT_SUPPORTED]))
    assert await device.ask(connect("", flags=0)) == (CONNACK, bytes([NOT_SUPPORTED]))
    assert await device.ask(connect("\x00")) == (CONNACK, bytes([NOT_SUPPORTED]))
    # Of a client that is not known, everything is answered by DISCONNECT, so that it connects.
    for request in (publish(1, b""), message(PINGREQ), subscribe(1, "a")):
        assert await device.ask(request) == (DISCONNECT, b"")
    await device.connect("dev")
    assert await device.ask(connect("dev")) == (CONNACK, bytes([ACCEPTED]))  # CONNACK was lost
    assert sn.count("connections", "mqtt-sn") >= 1


async def with_will(device: SnClient, client_id: str, topic: str, payload: bytes, duration: int = 60) -> None:
    assert await device.ask(connect(client_id, flags=CLEAN | WILL, duration=duration)) == (WILLTOPICREQ, b"")
    # The client repeats what is not answered.
    assert await device.ask(connect(client_id, flags=CLEAN | WILL, duration=duration)) == (WILLTOPICREQ, b"")
    assert await device.ask(message(WILLTOPIC, bytes([QOS[1]]) + topic.encode())) == (WILLMSGREQ, b"")
    assert await device.ask(message(WILLMSG, payload)) == (CONNACK, b"\0")


async def test_a_will_is_published_when_the_client_is_lost(
    device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await with_will(device, token, topic_of(token), b"gone", duration=1)
    assert (await cluster.request()).fields["payload"] == b"gone"
    assert await device.receive() == (DISCONNECT, b"")


async def test_a_will_is_changed_and_deleted(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await with_will(device, token, topic_of(token), b"gone")
    changed = message(WILLTOPICUPD, bytes([QOS[0]]) + topic_of(token, "/other").encode())
    assert await device.ask(changed) == (WILLTOPICRESP, b"\0")
    assert await device.ask(message(WILLMSGUPD, b"lost")) == (WILLMSGRESP, b"\0")
    # Another client at this address: the first one is lost.
    assert await device.ask(connect(token + "x")) == (CONNACK, b"\0")
    request = await cluster.request()
    assert (request.fields["payload"], request.fields["resourcePath"]) == (b"lost", "/other")
    await with_will(device, token, topic_of(token), b"gone")
    assert await device.ask(message(WILLTOPICUPD)) == (WILLTOPICRESP, b"\0")
    assert await device.ask(connect(token + "y")) == (CONNACK, b"\0")
    await with_will(device, token, topic_of(token), b"gone")
    assert await device.ask(message(DISCONNECT)) == (DISCONNECT, b"")
    device.send(publish(3, b"last", kind=PREDEFINED, qos=-1))
    await cluster.next_requests(2)
    assert cluster.requests[1].fields["payload"] == b"last"


async def test_an_empty_will_topic_is_no_will(device: SnClient) -> None:
    assert await device.ask(connect("dev", flags=CLEAN | WILL)) == (WILLTOPICREQ, b"")
    assert await device.ask(message(WILLTOPIC)) == (CONNACK, b"\0")


async def test_a_will_that_is_not_told_in_time(sn: SnGateway, device: SnClient) -> None:
    before = sn.count("events", "closed", "mqtt_sn_connect_timeout")
    assert await device.ask(connect("dev", flags=CLEAN | WILL)) == (WILLTOPICREQ, b"")
    await until(lambda: sn.count("events", "closed", "mqtt_sn_connect_timeout") == before + 1, "the end")
    assert await device.ask(message(WILLTOPIC, b"\0a")) == (DISCONNECT, b"")


async def test_long_lengths_both_ways(device: SnClient, cluster: Cluster, new_token: NewToken) -> None:
    token = new_token()
    await device.connect(token)
    device.send(publish(1, b"x" * 1000, kind=PREDEFINED))
    assert (await cluster.request()).fields["payload"] == b"x" * 1000
    assert await device.ask(message(PINGREQ, long=True)) == (PINGRESP, b"")
    await device.subscribe(2)
    await cluster.push(token, b"y" * 280, resourcePath="/push")
    assert (await device.receive())[1][5:] == b"y" * 280


async def test_clients_behind_a_forwarder(device: SnClient, cluster: Cluster, new_token: NewToken) -> None:
    """Two clients at one address, told apart by the ID of their node (5.5)."""

    def wrapped(node: bytes, inner: bytes, radius: int = 0) -> bytes:
        return bytes([3 + len(node), 0xFE, radius]) + node + inner

    tokens = new_token(), new_token()
    for node, token in zip((b"\1", b"\2\2"), tokens, strict=True):
        device.send(wrapped(node, connect(token), radius=1))
        assert await device.raw() == wrapped(node, message(CONNACK, b"\0"))
    for node in (b"\2\2", b"\1"):
        device.send(wrapped(node, publish(1, b"x", qos=1, message_id=1, kind=PREDEFINED)))
        assert await device.raw() == wrapped(node, acknowledgement(PUBACK, 1, 1))
    requests = await cluster.next_requests(2)
    assert [each.fields["endpointId"] for each in requests] == [tokens[1], tokens[0]]
    device.send(wrapped(b"\3", message(PINGREQ)))
    assert await device.raw() == wrapped(b"\3", message(DISCONNECT))


async def test_gateways_are_searched_for(device: SnClient) -> None:
    assert await device.ask(message(SEARCHGW, b"\0")) == (GWINFO, b"\7")


@pytest.mark.parametrize("bind_address", ["0.0.0.0", "*"])
async def test_gateways_are_searched_for_in_a_group(shared_nats: NatsServer, bind_address: str) -> None:
    changes = {"multicast-group": GROUP}
    gateway = SnGateway(shared_nats.url, changes, transport={"bind-address": bind_address})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as searching:
        try:
            searching.sendto(b"", (GROUP, free_port()))
        except OSError:
            pytest.skip("this machine has no route to a multicast group")
        with gateway:
            searching.sendto(message(SEARCHGW, b"\0"), (GROUP, gateway.port))
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(searching, 100), 30) == message(GWINFO, b"\7")


async def test_keep_alive_and_congestion_code(sn: SnGateway, device: SnClient) -> None:
    await device.connect("dev", duration=1)
    assert await device.receive() == (DISCONNECT, b"")
    await device.connect("dev")
    for index in range(8):
        await device.register(f"topic/{index}")
    assert await device.ask(register(1, "topic/8")) == (REGACK, number(0) + number(1) + bytes([CONGESTION]))
    assert await device.register("topic/0") == 1
