"""Receipts of pushes: what an extension on the SDK is told of a push, over each protocol, from real workers and NATS.

Source: docs/extensions.md, "Receipts".
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

import aiocoap
import aiomqtt
import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_ext import Extension, Request
from kaa_ext.sdk.push_outcome import PushOutcome
from kaa_ext.sdk.push_receipt import PushReceipt
from kaa_gateway.bus import subjects
from kaa_gateway.bus.push_receipts import PUSH_RECEIPT, RECEIPT_HEADER, receipt_subject
from kaa_gateway.wire.coap import Message as CoapMessage
from kaa_gateway.wire.esp import encode_extension_data
from kaa_gateway.wire.kpudp import Message, Reason, Type, decode, encode

from tests.support.cluster import Cluster
from tests.support.coap import GET, OBSERVE, RST, CoapClient, coap_server
from tests.support.esp import until
from tests.support.fleet import Fleet, fleet
from tests.support.kpudp import RawDevice, client, kpudp_gateway
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.mqtt5.packets import Puback as Puback5
from tests.support.mqtt5.packets import Publish as Publish5
from tests.support.mqtt5.packets import Subscribe as Subscribe5
from tests.support.mqtt5.peer import mqtt5_peer
from tests.support.nats import HOST, NatsServer

TOPIC = "kp1/app_v1/dcx/ep/json"
PUSHES = "kp1/app_v1/dcx/ep/#"
DELIVERED = PushOutcome("delivered")
LONG_S = 60.0
QUOTA_EXCEEDED = 0x97


@pytest.fixture
async def extension(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    extension = Extension("dcx", nats_urls=[shared_nats.url])

    @extension.handler("*")
    async def answer(request: Request) -> bytes:
        return b""

    async with extension:
        yield extension


@pytest.fixture
async def two(shared_nats: NatsServer) -> AsyncIterator[Fleet]:
    async with fleet(shared_nats.url, 2) as found:
        yield found


async def push(extension: Extension, **options: object) -> PushReceipt:
    return await extension.push("ep", "/json", b"news", receipt=True, **options)  # type: ignore[call-overload,no-any-return]


async def outcome_of(extension: Extension, **options: object) -> PushOutcome:
    return await (await push(extension, **options)).outcome(LONG_S)


async def accepted(receipt: PushReceipt) -> None:
    """Return when a session has accepted the push, and has not said more."""
    while (outcome := await receipt.outcome(0.01)).status != "accepted":
        assert outcome.status == "unknown"


async def attach(peer: MqttPeer, fleet: Fleet, *, qos: int) -> None:
    """Have the connection speak for the endpoint, and take pushes at this QoS."""
    await peer.subscribe(PUSHES, qos=qos)
    await peer.send(mqtt.Publish(TOPIC, b"", 1, 1))
    await peer.expect(mqtt.Puback)
    await until(lambda: any(len(each.sessions.endpoints) for each in fleet.workers), "the endpoint")


async def test_qos_1_is_delivered_when_the_device_has_acknowledged_it(
    two: Fleet, extension: Extension
) -> None:
    async with mqtt_client(two.ports[0], "c") as peer:
        await attach(peer, two, qos=1)
        receipt = await push(extension)
        packet = await peer.expect(mqtt.Publish)
        await accepted(receipt)
        await peer.send(mqtt.Puback(packet.packet_id or 0))
        assert await receipt.outcome(LONG_S) == DELIVERED


async def test_qos_2_is_delivered_when_the_device_has_completed_it(two: Fleet, extension: Extension) -> None:
    async with mqtt_client(two.ports[0], "c") as peer:
        await attach(peer, two, qos=2)
        receipt = await push(extension)
        number = (await peer.expect(mqtt.Publish)).packet_id or 0
        await peer.send(mqtt.Pubrec(number))
        await peer.expect(mqtt.Pubrel)
        await accepted(receipt)
        await peer.send(mqtt.Pubcomp(number))
        assert await receipt.outcome(LONG_S) == DELIVERED


async def test_qos_0_is_sent(two: Fleet, extension: Extension) -> None:
    async with mqtt_client(two.ports[0], "c") as peer:
        await attach(peer, two, qos=0)
        outcome = await outcome_of(extension)
        assert outcome == PushOutcome("sent")
        assert outcome.is_sent
        assert not outcome.is_delivered


async def test_a_real_client_acknowledges_by_itself(two: Fleet, extension: Extension) -> None:
    async with aiomqtt.Client(HOST, two.ports[0], identifier="c") as client:
        await client.subscribe(PUSHES, qos=1)
        await client.publish(TOPIC, b"", qos=1)
        assert await outcome_of(extension) == DELIVERED
        assert (await anext(client.messages)).payload == b"news"


async def test_a_push_to_nobody_says_so(two: Fleet, extension: Extension) -> None:
    assert await outcome_of(extension) == PushOutcome("no-session", "unknown_endpoint")
    assert await outcome_of(extension, gateway_replica_id="replica-1") == PushOutcome(
        "no-session", "unknown_endpoint"
    )


async def test_a_push_that_the_client_refuses_is_dropped(two: Fleet, extension: Extension) -> None:
    async with mqtt5_peer(two.ports[0]) as peer:
        await peer.connect("c")
        await peer.send(Subscribe5(1, ((PUSHES, 1),)))
        await peer.receive()
        await peer.send(Publish5(TOPIC, b"", qos=1, packet_id=1))
        await peer.expect(Puback5)
        receipt = await push(extension)
        packet = await peer.expect(Publish5)
        await peer.send(Puback5(packet.packet_id or 0, QUOTA_EXCEEDED))
        assert await receipt.outcome(LONG_S) == PushOutcome("dropped", "mqtt_refused_by_client")


async def test_a_push_that_expires_in_the_queue_of_an_absent_client_is_dropped(
    two: Fleet, extension: Extension
) -> None:
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await attach(peer, two, qos=1)
    await until(lambda: two.online() == 0, "the end of the connection")
    expiring = await push(extension, timeout_s=0.2)
    await accepted(expiring)
    lasting = await push(extension)
    await accepted(lasting)
    await asyncio.sleep(0.3)
    async with mqtt_peer(two.ports[0]) as peer:
        await peer.connect("c", clean_session=False)
        assert await expiring.outcome(LONG_S) == PushOutcome("dropped", "expired")
        packet = await peer.expect(mqtt.Publish)
        await peer.send(mqtt.Puback(packet.packet_id or 0))
        assert await lasting.outcome(LONG_S) == DELIVERED


async def test_a_full_queue_is_reported(shared_nats: NatsServer, extension: Extension) -> None:
    limits = {"queued_messages_per_session": 1, "in_flight_window": 1}
    async with fleet(shared_nats.url, 1, mqtt=limits) as one, mqtt_client(one.ports[0], "c") as peer:
        await attach(peer, one, qos=1)
        held = [await push(extension) for _ in range(2)]
        for receipt in held:
            await accepted(receipt)
        assert await outcome_of(extension) == PushOutcome("dropped", "session_queue_full")


async def test_a_session_that_ends_has_dropped_its_pushes(two: Fleet, extension: Extension) -> None:
    async with mqtt_client(two.ports[0], "c") as peer:
        await attach(peer, two, qos=1)
        receipt = await push(extension)
        await peer.expect(mqtt.Publish)
        await accepted(receipt)
    assert await receipt.outcome(LONG_S) == PushOutcome("dropped", "given_up")


async def test_a_push_that_moves_with_its_session_is_reported_by_the_other_worker(
    two: Fleet, extension: Extension
) -> None:
    async with mqtt_client(two.ports[0], "c", clean_session=False) as peer:
        await attach(peer, two, qos=1)
        in_flight = await push(extension)
        await peer.expect(mqtt.Publish)
        await accepted(in_flight)
    await until(lambda: two.online() == 0, "the end of the connection")
    queued = await push(extension)
    await accepted(queued)
    async with mqtt_peer(two.ports[1]) as peer:
        await peer.connect("c", clean_session=False)
        for receipt in (in_flight, queued):
            packet = await peer.expect(mqtt.Publish)
            await accepted(receipt)
            await peer.send(mqtt.Puback(packet.packet_id or 0))
            assert await receipt.outcome(LONG_S) == DELIVERED
    assert two.moved() == 1


async def test_a_repeated_push_is_not_sent_again(two: Fleet, extension: Extension) -> None:
    push_id = str(uuid.uuid4())
    async with mqtt_client(two.ports[0], "c") as peer:
        await attach(peer, two, qos=0)
        assert await outcome_of(extension, push_id=push_id) == PushOutcome("sent")
        assert await outcome_of(extension, push_id=push_id) == PushOutcome("repeated")


async def test_a_notification_is_delivered_when_a_real_coap_client_acknowledges_it(
    shared_nats: NatsServer, extension: Extension
) -> None:
    context = await aiocoap.Context.create_client_context(transports=["simple6"])
    try:
        async with coap_server(shared_nats.url) as server:
            uri = f"{server.uri}/kp1/app_v1/dcx/ep/json"
            request = context.request(aiocoap.Message(code=aiocoap.GET, uri=uri, observe=0))
            await asyncio.wait_for(request.response, LONG_S)
            assert await outcome_of(extension) == DELIVERED
            request.observation.cancel()
    finally:
        await context.shutdown()


async def test_a_notification_that_is_not_acknowledged_is_dropped(
    shared_nats: NatsServer, extension: Extension
) -> None:
    async with coap_server(shared_nats.url) as server, CoapClient(server.port) as device:
        await device.ask(device.request("kp1/app_v1/dcx/ep/json", b"", (OBSERVE, b""), method=GET))
        first = await push(extension)
        device.acknowledge(await device.receive())
        assert await first.outcome(LONG_S) == DELIVERED  # the address is verified now
        receipt = await push(extension)
        await accepted(receipt)
        while not receipt.is_over:
            await server.put_forward(20.0)
        assert await receipt.outcome(LONG_S) == PushOutcome("dropped", "coap_unacknowledged")


async def test_a_device_that_rejects_a_notification_has_not_got_it(
    shared_nats: NatsServer, extension: Extension
) -> None:
    async with coap_server(shared_nats.url) as server, CoapClient(server.port) as device:
        await device.ask(device.request("kp1/app_v1/dcx/ep/json", b"", (OBSERVE, b""), method=GET))
        receipt = await push(extension)
        notification = await device.receive()
        device.send(CoapMessage(RST, 0, notification.message_id))
        assert await receipt.outcome(LONG_S) == PushOutcome("dropped", "coap_reset_by_device")


async def test_kp_over_udp_acknowledges_pushes(shared_nats: NatsServer, extension: Extension) -> None:
    async with kpudp_gateway(shared_nats.url) as gateway, client(gateway.port) as device:
        await device.ping("kp1/app_v1/dcx/ep")
        await until(lambda: "ep" in gateway.presence.present, "the proof of the address")
        assert await outcome_of(extension) == DELIVERED


async def test_a_device_that_resets_a_push_has_not_got_it(
    shared_nats: NatsServer, extension: Extension
) -> None:
    async with kpudp_gateway(shared_nats.url) as gateway:
        with RawDevice(gateway.port) as device:
            ping = Message(Type.PING, 1, path="kp1/app_v1/dcx/ep", payload=bytes(8))
            device.send(encode(1, [ping]))
            frames = decode(await device.receive())[1]
            device.send(encode(1, [Message(Type.PONG, frames[1].message_id, payload=frames[1].payload)]))
            await until(lambda: "ep" in gateway.presence.present, "the proof of the address")
            receipt = await push(extension)
            (frame,) = decode(await device.receive())[1]
            device.send(encode(1, [Message(Type.RESET, frame.message_id, status=Reason.NOT_WANTED)]))
            assert await receipt.outcome(LONG_S) == PushOutcome("dropped", "kpudp_reset_by_device")
            large = await extension.push("ep", "/json", bytes(2000), receipt=True)
            assert await large.outcome(LONG_S) == PushOutcome("dropped", "kpudp_push_too_large")


@pytest.mark.parametrize(
    "subject",
    [
        subjects.service("kpc", "esp", subjects.EXTENSION_DATA),
        "kaa.v1.replica.one.two.esp.PushReceipt",
        "kaa.v1.replica.*.esp.PushReceipt",
        f"kaa.v1.replica.{'x' * 129}.esp.PushReceipt",
        "kaa.v1.replica.x.esp.ClientData",
        "",
    ],
)
async def test_a_header_may_not_choose_any_subject(two: Fleet, shared_nats: NatsServer, subject: str) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, mqtt_client(two.ports[0], "c") as peer:
        await attach(peer, two, qos=0)
        heard: list[object] = []

        async def hear(message: object) -> None:
            heard.append(message)

        await cluster.nats.subscribe("kaa.v1.*.*.*.PushReceipt", cb=hear)
        datum = encode_extension_data(str(uuid.uuid4()), 0, 0, None, "dcx", "ep", "/json", None, b"news", 200)
        await cluster.nats.publish(
            subjects.service("kpc", "esp", subjects.EXTENSION_DATA), datum, headers={RECEIPT_HEADER: subject}
        )
        assert (await peer.expect(mqtt.Publish)).payload == b"news"
        await until(lambda: two.reason("dropped", "receipt_malformed") == 2, "both workers to refuse it")
        assert heard == []


async def test_a_receipt_is_a_message_of_3_ism(two: Fleet, shared_nats: NatsServer) -> None:
    """For who does not use the SDK."""
    async with Cluster(shared_nats.url, "dcx") as cluster, mqtt_client(two.ports[0], "c") as peer:
        await attach(peer, two, qos=0)
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(message: object) -> None:
            heard.put_nowait(message.data)  # type: ignore[attr-defined]

        await cluster.nats.subscribe(receipt_subject("mine"), cb=hear)
        datum = encode_extension_data("push-1", 0, 0, None, "dcx", "ep", "/json", None, b"news", 200)
        await cluster.nats.publish(
            subjects.service("kpc", "esp", subjects.EXTENSION_DATA),
            datum,
            headers={RECEIPT_HEADER: receipt_subject("mine")},
        )
        receipts = [PUSH_RECEIPT.decode(await asyncio.wait_for(heard.get(), LONG_S)) for _ in range(2)]
    by_outcome = {each["outcome"]: each for each in receipts}
    assert set(by_outcome) == {"sent", "no-session"}
    assert by_outcome["sent"]["gatewayReplicaId"] == "replica-0"
    assert by_outcome["sent"]["session"]
    assert by_outcome["no-session"]["session"] is None
    for each in receipts:
        assert (each["correlationId"], each["endpointId"]) == ("push-1", "ep")
