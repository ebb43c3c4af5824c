"""What a device publishes over MQTT arrives on NATS as the ClientData of 4/ESP, field by field, read by fastavro."""

import json
import time
from collections.abc import AsyncIterator, Callable

import pytest
from kaa_bench.mqtt_packets import Puback, Publish

from tests.support.cluster import TO_REPLICA, Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import mqtt_client
from tests.support.nats import NatsServer

NATS_PAYLOAD_MAX = 1024 * 1024
"""nats-server's default max_payload, in bytes."""

NewToken = Callable[[], str]


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx", "echo", "unaware") as cluster:
        yield cluster


async def test_all_fields(shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken) -> None:
    token = new_token()
    before = time.time_ns() // 1_000_000
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"kp1/app_v1/dcx/{token}/json/42", b'{"t": 1}'))
        fields, subject, reply = await cluster.request()
    assert subject == "kaa.v1.service.dcx.esp.ClientData"
    assert reply == TO_REPLICA
    assert len(fields.pop("correlationId")) == 36
    assert before - 1 <= fields.pop("timestamp") <= time.time_ns() // 1_000_000
    assert fields == {
        "timeout": 0,
        "appVersionName": "app_v1",
        "endpointId": token,
        "resourcePath": "/json",
        "requestId": 42,
        "payload": b'{"t": 1}',
        "configName": None,
    }


# What follows kp1/<application version>/, and the endpointId, resourcePath and requestId that it means;
# TOKEN stands for the test's token.
PATHS = [
    ("dcx/TOKEN/json/42", "TOKEN", "/json", 42),
    ("dcx/TOKEN/json", "TOKEN", "/json", None),
    ("dcx/TOKEN", "TOKEN", "", None),
    ("dcx/TOKEN/7", "TOKEN", "", 7),
    ("dcx/TOKEN/", "TOKEN", "/", None),
    ("dcx/TOKEN/json/", "TOKEN", "/json/", None),
    ("dcx/TOKEN//7", "TOKEN", "/", 7),
    ("dcx/TOKEN/a/1/b/2", "TOKEN", "/a/1/b", 2),
    ("dcx/TOKEN/json/0", "TOKEN", "/json", 0),
    ("dcx/TOKEN/json/007", "TOKEN", "/json", 7),
    ("dcx/TOKEN/json/2147483647", "TOKEN", "/json", 2147483647),
    ("dcx/TOKEN/json/2147483648", "TOKEN", "/json/2147483648", None),
    ("dcx/TOKEN/json/99999999999999999999", "TOKEN", "/json/99999999999999999999", None),
    ("dcx/TOKEN/json/-1", "TOKEN", "/json/-1", None),
    ("dcx/TOKEN/json/1a", "TOKEN", "/json/1a", None),
    ("dcx/TOKEN/json/٣", "TOKEN", "/json/٣", None),
    ("dcx/TOKEN/дані/json/5", "TOKEN", "/дані/json", 5),
    ("dcx/TOKEN-датчик-温度-🌡/json/5", "TOKEN-датчик-温度-🌡", "/json", 5),
    ("dcx/TOKEN with spaces.and*dots>/json", "TOKEN with spaces.and*dots>", "/json", None),
    ("unaware/json/42", None, "/json", 42),
    ("unaware/json", None, "/json", None),
    ("unaware/42", None, "", 42),
    ("unaware", None, "", None),
]


async def test_resource_paths(shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken) -> None:
    """Each path twice: compiled, and out of the route cache."""
    token = new_token()
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        for repetition in range(2):
            for number, (path, *_) in enumerate(PATHS):
                topic = f"kp1/app_v1/{path.replace('TOKEN', token)}"
                await device.send(Publish(topic, b"%d" % number, qos=1, packet_id=number + 1))
                assert await device.expect(Puback) == Puback(number + 1)
            requests = await cluster.next_requests(len(PATHS), after=repetition * len(PATHS))
            for number, (request, (path, endpoint_id, resource_path, request_id)) in enumerate(
                zip(requests, PATHS, strict=True)
            ):
                fields = request.fields
                assert (
                    fields["payload"],
                    fields["endpointId"],
                    fields["resourcePath"],
                    fields["requestId"],
                    request.subject.split(".")[3],
                ) == (
                    b"%d" % number,
                    None if endpoint_id is None else endpoint_id.replace("TOKEN", token),
                    resource_path,
                    request_id,
                    path.split("/")[0],
                ), path
    assert len({request.fields["correlationId"] for request in cluster.requests}) == 2 * len(PATHS)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"not json {", bytes(range(256)) * 17, b"\r\nPUB evil 0\r\n\r\nPING\r\n"],
    ids=["empty", "nul", "not-json", "every-byte", "nats-protocol"],
)
async def test_payloads_are_opaque(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, payload: bytes
) -> None:
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        await device.send(Publish(f"kp1/app_v1/dcx/{new_token()}/json/1", payload))
        assert (await cluster.request()).fields["payload"] == payload


async def test_the_largest_payload_that_nats_takes(
    shared_nats: NatsServer, cluster: Cluster, new_token: NewToken
) -> None:
    """What fits arrives; what does not is refused with 413 by us, and NATS never sees it (it would disconnect us)."""
    token = new_token()
    topic = f"kp1/app_v1/dcx/{token}/json"
    limits = {"kaa": {"kpc": {"transports": {"mqtt": {"max-packet-size": 2 * NATS_PAYLOAD_MAX}}}}}
    with GatewayProcess(shared_nats.url, limits) as gateway:
        async with mqtt_client(gateway.mqtt_port) as device:
            for packet_id, spare in enumerate((512, 300), start=1):
                payload = bytes([packet_id]) * (NATS_PAYLOAD_MAX - spare)
                await device.send(Publish(f"{topic}/{packet_id}", payload, 1, packet_id))
                assert await device.expect(Puback) == Puback(packet_id)
                (request,) = await cluster.next_requests(1, after=packet_id - 1)
                assert request.fields["payload"] == payload
            await device.send(Publish(f"{topic}/3", bytes(NATS_PAYLOAD_MAX), 1, 3))
            refusal, acknowledgement = await device.receive(), await device.receive()
            assert acknowledgement == Puback(3)
            assert isinstance(refusal, Publish)
            assert (refusal.topic, refusal.qos) == (f"{topic}/3/error", 1)
            assert json.loads(refusal.payload) == {
                "statusCode": 413,
                "reasonPhrase": "Payload is larger than NATS accepts",
            }
            assert len(cluster.requests) == 2
        assert gateway.count("events", "refused", "payload_too_large") == 1
        assert gateway.count("nats_connects") == 1


@pytest.mark.parametrize(
    ("path", "phrase"),
    [
        ("kp1/unknown/dcx/TOKEN/json", "Unknown application version"),
        (
            "kp1/app_v1/unknown/TOKEN/json",
            "Unknown extension instance, or not allowed for this application version",
        ),
        (
            "kp1/app_v2/dcx/TOKEN/json",
            "Unknown extension instance, or not allowed for this application version",
        ),
        ("kp1/app_v1/dcx/", "Endpoint token is missing"),
        ("kp1/app_v1/dcx//json", "Endpoint token is missing"),
        ("kp1/app_v1/dcx/" + "x" * 257 + "/json", "Endpoint token is malformed"),
        ("kp1/app_v1/dcx/a\x1bb/json", "Endpoint token is malformed"),
        ("kp1/app_v1/dcx/TOKEN/js\x7fon", "Resource path is malformed"),
        ("kp1/app_v1/dcx/TOKEN/js\x9bon", "Resource path is malformed"),
        ("kp1/app_v1/dcx/TOKEN/" + "x" * 1024, "Resource path is too long"),
        ("kp1/app_v1", "Resource path must be kp1/<application version>/<extension instance>/..."),
        ("kp1/", "Resource path must be kp1/<application version>/<extension instance>/..."),
        ("kp1//dcx/TOKEN", "Resource path must be kp1/<application version>/<extension instance>/..."),
    ],
)
async def test_what_has_no_route_is_404(
    shared_gateway: GatewayProcess, cluster: Cluster, new_token: NewToken, path: str, phrase: str
) -> None:
    """With request ID at QoS 0, and without one at QoS 1, whose bare PUBACK would say that all is well."""
    topic = path.replace("TOKEN", new_token())
    async with mqtt_client(shared_gateway.mqtt_port) as device:
        for publish in (Publish(topic, b"x", 1, 9), Publish(topic, b"x"), Publish(f"{topic}/json/8", b"x")):
            await device.send(publish)
        received = [await device.expect(Publish)]
        received += [packet for packet in await device.until_pingresp() if isinstance(packet, Publish)]
        assert [(packet.topic, packet.qos) for packet in received] == [
            (f"{topic}/error", 1),
            (f"{topic}/json/8/error", 0),
        ]
        assert json.loads(received[0].payload) == {"statusCode": 404, "reasonPhrase": phrase}
        assert json.loads(received[1].payload)["statusCode"] == 404
    assert not cluster.requests
