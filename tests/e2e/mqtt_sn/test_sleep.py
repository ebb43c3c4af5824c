"""MQTT-SN clients that sleep, that come back, and that are at a new address.

Source: MQTT-SN 1.2, sections 6.3 and 6.14.
"""

from collections.abc import Callable

from tests.e2e.mqtt_sn.conftest import SnGateway
from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.mqtt_sn import (
    CLEAN,
    CONGESTION,
    CONNACK,
    DISCONNECT,
    DUP,
    PINGREQ,
    PINGRESP,
    PREDEFINED,
    PUBACK,
    PUBLISH,
    QOS,
    REGACK,
    REGISTER,
    WILL,
    WILLMSG,
    WILLMSGREQ,
    WILLTOPIC,
    WILLTOPICREQ,
    SnClient,
    acknowledgement,
    connect,
    message,
    number,
    publish,
    register,
)
from tests.support.nats import NatsServer

NewToken = Callable[[], str]
KEPT = 32 + 1000
"""QoS 1 messages for a client that sleeps: a full window, and a full queue."""


async def pushed(sn: SnGateway, cluster: Cluster, token: str, *payloads: bytes) -> None:
    """Push, and return when the session has the messages."""
    before = sn.count("messages_out", "mqtt-sn")
    for payload in payloads:
        await cluster.push(token, payload, resourcePath="/push")
    await until(lambda: sn.count("messages_out", "mqtt-sn") == before + len(payloads), "the pushes")


async def test_messages_wait_while_a_client_sleeps(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    await device.subscribe(2, qos=1)
    await device.sleep(60)
    assert sn.count("queue_depth", "mqtt_sn_sleeping_clients") >= 1
    await pushed(sn, cluster, token, b"1", b"2")
    await device.silence()
    for payload in (b"1", b"2"):
        if payload == b"1":
            device.send(message(PINGREQ, token.encode()))
        kind, body = await device.receive()
        assert (kind, body[:3], body[5:]) == (PUBLISH, bytes([QOS[1] | PREDEFINED]) + number(2), payload)
        device.send(acknowledgement(PUBACK, 2, int.from_bytes(body[3:5], "big")))
    assert await device.receive() == (PINGRESP, b"")
    await pushed(sn, cluster, token, b"3")
    await device.silence()
    # A message that the client has not acknowledged before it sleeps comes again.
    device.send(message(PINGREQ, token.encode()))
    kind, body = await device.receive()
    assert body[5:] == b"3"
    await device.sleep(60)
    assert await device.ask(message(PINGREQ, token.encode())) == (PUBLISH, bytes([body[0] | DUP]) + body[1:])
    device.send(acknowledgement(PUBACK, 2, int.from_bytes(body[3:5], "big")))
    assert await device.receive() == (PINGRESP, b"")
    # PINGREQ without anything to tell.
    assert await device.ask(message(PINGREQ, token.encode())) == (PINGRESP, b"")
    assert await device.ask(message(PINGREQ, b"somebody")) == (DISCONNECT, b"")


async def test_messages_at_qos_0_that_wait_are_bounded(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    await device.subscribe(2, qos=0)
    await device.sleep(60)
    before = sn.count("events", "dropped", "mqtt_sn_buffer_full")
    await pushed(sn, cluster, token, b"1", b"2", b"3", b"4")
    assert sn.count("events", "dropped", "mqtt_sn_buffer_full") == before + 1
    device.send(message(PINGREQ, token.encode()))
    assert [(await device.receive())[1][5:] for _ in range(3)] == [b"1", b"2", b"3"]
    assert await device.receive() == (PINGRESP, b"")


async def test_a_thousand_pushes_to_a_sleeping_client(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    """At QoS 1, as many wait as a session may have; the rest is counted."""
    token = new_token()
    await device.connect(token)
    await device.subscribe(2, qos=1)
    await device.sleep(60)
    dropped = sn.count("events", "dropped", "session_queue_full")
    for number_ in range(KEPT + 200):
        await cluster.push(token, b"%d" % number_, resourcePath="/push")
    await until(
        lambda: sn.count("events", "dropped", "session_queue_full") == dropped + 200, "the dropped messages"
    )
    device.send(message(PINGREQ, token.encode()))
    received = 0
    while (answer := await device.receive())[0] != PINGRESP:
        kind, body = answer
        if kind == REGISTER:
            device.send(acknowledgement(REGACK, *(int.from_bytes(body[at : at + 2], "big") for at in (0, 2))))
            continue
        if not body[0] & DUP or body[5:] != b"%d" % (received - 1):  # a slow answer has it sent again
            assert (kind, body[5:]) == (PUBLISH, b"%d" % received)  # the oldest, in order
            received += 1
        device.send(acknowledgement(PUBACK, 2, int.from_bytes(body[3:5], "big")))
    assert received == KEPT


async def test_a_sleeping_client_wakes_up_at_another_address(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    await device.subscribe(2, qos=1)
    await device.sleep(60)
    await pushed(sn, cluster, token, b"1")
    with SnClient(sn.port) as moved:
        kind, body = await moved.ask(message(PINGREQ, token.encode()))
        assert (kind, body[5:]) == (PUBLISH, b"1")
        moved.send(acknowledgement(PUBACK, 2, int.from_bytes(body[3:5], "big")))
        assert await moved.receive() == (PINGRESP, b"")
        await device.silence()
        # What comes from the old address is that of a stranger, and so is what is no PINGREQ.
        assert await device.ask(publish(1, b"", kind=PREDEFINED)) == (DISCONNECT, b"")
        assert await moved.ask(message(DISCONNECT)) == (DISCONNECT, b"")
        assert await moved.ask(message(PINGREQ, token.encode())) == (DISCONNECT, b"")


async def test_a_client_returns_from_its_sleep(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token)
    topic_id = await device.subscribe(f"kp1/app_v1/dcx/{token}/x/status", qos=0)
    await device.sleep(60)
    before = sn.count("messages_out", "mqtt-sn")
    await cluster.push(token, b"1", resourcePath="/x")
    await until(lambda: sn.count("messages_out", "mqtt-sn") == before + 1, "the push")
    # A sleeping client sends nothing but PINGREQ, CONNECT and DISCONNECT.
    device.send(publish(1, b"", kind=PREDEFINED))
    await device.silence()
    assert await device.ask(connect(token, flags=0)) == (CONNACK, b"\0")
    kind, body = await device.receive()
    # It may have forgotten its topic IDs.
    assert (kind, body[:2]) == (REGISTER, number(topic_id))
    kind, body = await device.ask(acknowledgement(REGACK, topic_id, int.from_bytes(body[2:4], "big")))
    assert (kind, body) == (PUBLISH, b"\0" + number(topic_id) + b"\0\0" + b"1")
    device.send(publish(1, b"up", kind=PREDEFINED))
    assert (await cluster.request()).fields["payload"] == b"up"


async def test_a_client_that_sleeps_for_too_long_is_lost(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    assert await device.ask(connect(token, flags=CLEAN | WILL)) == (WILLTOPICREQ, b"")
    assert await device.ask(message(WILLTOPIC, b"\0" + f"kp1/app_v1/dcx/{token}/json".encode())) == (
        WILLMSGREQ,
        b"",
    )
    assert await device.ask(message(WILLMSG, b"lost")) == (CONNACK, b"\0")
    await device.sleep(1)
    assert (await cluster.request()).fields["payload"] == b"lost"
    assert sn.count("events", "closed", "mqtt_sn_asleep_for_too_long") >= 1
    await device.silence()  # it sleeps
    assert await device.ask(message(PINGREQ, token.encode())) == (DISCONNECT, b"")


async def test_registered_topics_move_with_the_session(
    sn: SnGateway, device: SnClient, cluster: Cluster, shared_nats: NatsServer, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token, flags=0)
    assert await device.register(f"kp1/app_v1/dcx/{token}/json/1") == 1
    assert await device.register(f"kp1/app_v1/dcx/{token}/json") == 2
    with SnGateway(shared_nats.url, {"registered-topics": 2}, replica="replica-2") as second:
        with SnClient(second.port) as moved:
            await moved.connect(token, flags=0)
            assert await device.receive() == (DISCONNECT, b"")
            answer = acknowledgement(PUBACK, 2, 5)
            moved.send(publish(2, b"moved", qos=1, message_id=5))
            assert message(*await moved.receive()) == answer
            assert (await cluster.request()).fields["payload"] == b"moved"
            # The bound of the worker holds for what has moved, too.
            kind, body = await moved.ask(register(6, f"kp1/app_v1/dcx/{token}/json/3"))
            assert (kind, body[-1]) == (REGACK, CONGESTION)
            # And they outlive a connection.
            assert await moved.ask(message(DISCONNECT)) == (DISCONNECT, b"")
            await moved.connect(token, flags=0)
            moved.send(publish(1, b"", qos=1, message_id=6))
            assert message(*await moved.receive()) == acknowledgement(PUBACK, 1, 6)
        assert second.stop() == 0
        assert "Traceback" not in second.log


async def test_the_use_of_predefined_topics_moves_with_the_session(
    sn: SnGateway, device: SnClient, cluster: Cluster, shared_nats: NatsServer, new_token: NewToken
) -> None:
    """The other worker may use predefined topic IDs at once, because the device has used one before it moved."""
    token = new_token()
    await device.connect(token, flags=0)
    await device.subscribe(f"kp1/app_v1/dcx/{token}/push/#", qos=1)
    device.send(publish(1, b"", kind=PREDEFINED))
    await cluster.request()
    with SnGateway(shared_nats.url, replica="replica-2") as second, SnClient(second.port) as moved:
        await moved.connect(token, flags=0)
        assert await device.receive() == (DISCONNECT, b"")
        await cluster.push(token, b"1", resourcePath="/push")
        kind, body = await moved.receive()
        if kind == REGISTER:  # of an address that is not proved
            kind, body = await moved.ask(acknowledgement(REGACK, 2, int.from_bytes(body[2:4], "big")))
        assert (kind, body[0], body[1:3]) == (PUBLISH, QOS[1] | PREDEFINED, number(2))
        assert "Traceback" not in second.log


async def test_a_session_outlives_its_connection(
    sn: SnGateway, device: SnClient, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    await device.connect(token, flags=0)
    await device.subscribe(2, qos=1)
    assert await device.ask(message(DISCONNECT)) == (DISCONNECT, b"")
    await pushed(sn, cluster, token, b"1")
    with SnClient(sn.port) as other:
        assert await other.ask(connect(token, flags=0)) == (CONNACK, b"\0")
        kind, body = await other.receive()
        assert (kind, body[:3], body[5:]) == (PUBLISH, bytes([QOS[1] | PREDEFINED]) + number(2), b"1")
        # The first address takes over, and the message comes again.
        device.send(connect(token, flags=0))
        assert await other.receive() == (DISCONNECT, b"")
        assert await device.receive() == (CONNACK, b"\0")
        kind, again = await device.receive()
        assert (kind, again) == (PUBLISH, bytes([body[0] | DUP]) + body[1:])
        device.send(acknowledgement(PUBACK, 2, int.from_bytes(body[3:5], "big")))
        await device.silence()
        # A clean session begins from nothing.
        assert await device.ask(connect(token)) == (CONNACK, b"\0")
        await cluster.push(token, b"2", resourcePath="/push")
        await device.silence()
