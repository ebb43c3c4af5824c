"""Every resource of 2/DCP, 7/CMP, 10/EPMP and 11/CEP over MQTT, HTTP and CoAP, by the RFCs' schemas; and bad input.

The gateway is a process of its own; the services run in this one, on a real NATS server.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from kaa_ext import Extension
from kaa_ext.messages import cdtp, cip, dstp, eme
from kaa_ext.services import cex, cmx, dcx, ecr, epmx, epts
from kaa_gateway.bus.flushing import flush
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.devices import (
    TIMEOUT_S,
    CoapDevice,
    Device,
    MqttDevice,
    coap_device,
    http_device,
    mqtt_device,
)
from tests.support.esp import until
from tests.support.extensions import APPLICATION
from tests.support.gateway import GatewayProcess
from tests.support.json_schemas import is_valid, validate
from tests.support.nats import NatsServer

TRANSPORTS = ["mqtt", "http", "coap"]
CALLER = "kaa.v1.replica.caller.cip.command-result"


@pytest.fixture(scope="module")
def jetstream() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(jetstream: NatsServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(jetstream.url, APPLICATION) as process:
        yield process
        assert "Traceback" not in process.log, process.log


class Platform:
    """What stands behind the gateway: the services, and a NATS client for the other end of each."""

    def __init__(self, nats: Client, registry: ecr.Registry) -> None:
        self.nats = nats
        self.registry = registry
        self._number = 0

    async def listen(self, subject: str) -> list[Msg]:
        heard: list[Msg] = []

        async def collect(message: Msg) -> None:
            heard.append(message)

        await self.nats.subscribe(subject, cb=collect)
        await flush(self.nats)
        return heard

    async def invoke(
        self, endpoint_id: str, kind: str, payload: bytes | None = None, *, reply: str = ""
    ) -> int:
        self._number += 1
        datum = cip.COMMAND_REQUEST.encode(
            endpointId=endpoint_id, commandType=kind, commandId=self._number, payload=payload
        )
        await self.nats.publish(cip.request_subject("cex"), datum, reply)
        return self._number


@pytest.fixture
async def kaa(jetstream: NatsServer) -> AsyncIterator[Platform]:
    services: dict[str, Extension] = {
        name: Extension(name, nats_urls=[jetstream.url])
        for name in ("dcx", "epts", "cmx", "ecr", "epmx", "cex")
    }
    dcx.register(services["dcx"], dcx.Settings(must_confirm=frozenset({"epts"}), confirmation_timeout=30))
    epts.register(services["epts"])
    cmx.register(services["cmx"], cmx.Settings(provider_timeout=30))
    ecr.register(services["ecr"])
    epmx.register(services["epmx"], epmx.Settings(access={"serial": "read", "secret": "write"}))
    cex.register(services["cex"])
    nats = Client()
    await nats.connect(jetstream.url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(nats.close)
        for extension in services.values():
            await stack.enter_async_context(extension)
        state = services["ecr"]._states[ecr.STATE]
        yield Platform(nats, ecr.Registry("ecr", state, services["ecr"].publish))


@pytest.fixture(params=TRANSPORTS)
async def device(
    request: pytest.FixtureRequest, gateway: GatewayProcess, kaa: Platform, new_token: Callable[[], str]
) -> AsyncIterator[Device]:
    token = f"{request.param}.{new_token()}"
    match request.param:
        case "mqtt":
            async with mqtt_device(gateway.mqtt_port, token) as over_mqtt:
                yield over_mqtt
        case "http":
            async with http_device(gateway.http_port, token) as over_http:
                yield over_http
        case _:
            async with coap_device(gateway.coap_port, token) as over_coap:
                yield over_coap


async def post(
    device: Device, extension: str, path: str, body: Any = None, *, request: str = "", response: str = ""
) -> Any:
    """Send what is valid by the schema of the request; returns the answer, which must be so by that of the response."""
    if request and body is not None:
        validate(request, body)
    answer = await device.ask(extension, path, b"" if body is None else json.dumps(body).encode())
    assert answer.status == 200, answer
    if not response:
        assert answer.payload == b""
        return None
    validate(response, answer.json())
    return answer.json()


async def test_data_collection(device: Device, kaa: Platform) -> None:
    events = await kaa.listen(dstp.event_subject("dcx"))
    confirmations = await kaa.listen("kaa.v1.replica.*.dstp.DataSamplesProcessed")
    await post(device, "dcx", "/json", [{"t": 21.5}, 15, [None]], request="0002-request")
    answer = await device.ask("dcx", "/plain/humidity", b"40.50")
    assert (answer.status, answer.payload) == (200, b"")
    await until(lambda: len(events) == len(confirmations) == 2, "the events and confirmations")
    assert [dstp.DATA_SAMPLES_EVENT.decode(event.data)["dataSamples"] for event in events] == [
        [b'{"t": 21.5}', b"15", b"[null]"],
        [b'{"humidity":40.50}'],
    ]
    fields = [dstp.DATA_SAMPLES_PROCESSED.decode(message.data) for message in confirmations]
    assert [(each["receiverServiceInstanceName"], each["statusCode"]) for each in fields] == [
        ("epts", 200)
    ] * 2
    stream = await kaa.nats.jetstream().get_last_msg(
        "epts-samples", epts.stream_subject("epts", "app_v1", device.token)
    )
    assert json.loads(stream.data or b"")["samples"] == [{"humidity": 40.5}]


async def test_configuration(device: Device, kaa: Platform) -> None:
    applied = await kaa.listen(cdtp.applied_subject("cmx"))
    schemas = {"request": "0007-config-request", "response": "0007-config-response"}
    assert await post(device, "cmx", "/config/json", {}, **schemas) == {"configId": "", "config": None}
    config_id = (await kaa.registry.set("app_v1", device.token, "", b'{"interval": 10}')).config_id
    network_id = (await kaa.registry.set("app_v1", device.token, "network", b'["WPA2"]')).config_id
    body = {"configId": "", "observe": True}
    found = await post(device, "cmx", "/config/json", body, **schemas)
    assert found == {"configId": config_id, "config": {"interval": 10}}
    found = await post(device, "cmx", "/config/json/network", {"observe": True}, **schemas)
    assert found == {"configId": network_id, "config": ["WPA2"]}
    assert await post(device, "cmx", "/config/json", {"configId": config_id}, **schemas) == {}
    body = {"configId": config_id, "statusCode": 400, "reasonPhrase": "Too often"}
    await post(device, "cmx", "/applied/json", body, request="0007-applied-request")
    await post(
        device, "cmx", "/applied/json/network", {"configId": network_id}, request="0007-applied-request"
    )
    await until(lambda: len(applied) == 1, "the event")
    fields = cdtp.CONFIG_APPLIED.decode(applied[0].data)
    assert (fields["endpointId"], fields["configId"], fields["statusCode"], fields["reasonPhrase"]) == (
        device.token, config_id, 400, "Too often",
    )  # fmt: skip


async def test_metadata(device: Device, kaa: Platform) -> None:
    events = await kaa.listen(eme.event_subject("epmx"))
    update = "0010-update-metadata-request"
    await post(device, "epmx", "/update", {"name": "Sensor 1", "cores": 2}, request=update)
    await post(device, "epmx", "/update/keys", {"cores": 4, "location": {"lat": 27.6}}, request=update)
    keys = await post(device, "epmx", "/get/keys", response="0010-get-metadata-keys-response")
    assert sorted(keys) == ["cores", "location", "name"]
    schemas = {"request": "0010-get-metadata-request", "response": "0010-get-metadata-response"}
    assert await post(device, "epmx", "/get", {"keys": ["cores"]}, **schemas) == {"cores": 4}
    await post(device, "epmx", "/delete/keys", ["name"], request="0010-delete-metadata-keys-request")
    assert await post(device, "epmx", "/get", **schemas) == {"cores": 4, "location": {"lat": 27.6}}
    await until(lambda: len(events) == 3, "the events")
    fields = eme.METADATA_UPDATED.decode(events[1].data)
    assert fields["updated"] == {"cores": {"newValue": "4", "oldValue": "2"}}
    assert fields["endpointId"] == device.token


async def test_commands(device: Device, kaa: Platform) -> None:
    results = await kaa.listen(CALLER)
    first = await kaa.invoke(device.token, "reboot", b'{"delay": 5}', reply=CALLER)
    second = await kaa.invoke(device.token, "reboot", reply=CALLER)
    schemas = {"request": "0011-command-request", "response": "0011-command-response"}
    expected = [{"id": first, "payload": {"delay": 5}}, {"id": second}]

    async def outstanding() -> Any:
        commands = await post(device, "cex", "/command/reboot", {"observe": True}, **schemas)
        return sorted(commands, key=lambda command: command["id"])

    while (found := await outstanding()) != expected:
        assert all(command in expected for command in found)
    body = {"id": first, "statusCode": 200, "reasonPhrase": "OK", "payload": {"up": True}}
    await post(device, "cex", "/result/reboot", body, request="0011-result-request")
    await post(device, "cex", "/result/reboot", [{"id": second, "statusCode": 501}])
    assert await outstanding() == []
    await until(lambda: len(results) == 2, "the results")
    fields = [cip.COMMAND_RESULT.decode(message.data) for message in results]
    assert [(each["commandId"], each["statusCode"], each["payload"]) for each in fields] == [
        (first, 200, b'{"up": true}'),
        (second, 501, None),
    ]


BAD_INPUT = [
    ("dcx", "/json", b"", "0002-request", 400),
    ("dcx", "/json", b'[{"t": }]', "0002-request", 400),
    ("dcx", "/json", b'"text"', "0002-request", 400),
    ("dcx", "/plain/t", b"", "", 400),
    ("dcx", "/plain/t", b"[1]", "", 400),
    ("cmx", "/config/json", b"[]", "0007-config-request", 400),
    ("cmx", "/config/json", b'{"configId": 5}', "0007-config-request", 400),
    ("cmx", "/config/json/n", b'{"observe": "yes"}', "0007-config-request", 400),
    ("cmx", "/config/json", b'{"more": 1}', "0007-config-request", 400),
    ("cmx", "/applied/json", b"{}", "0007-applied-request", 400),
    ("cmx", "/applied/json/n", b'{"configId": "a", "statusCode": "OK"}', "0007-applied-request", 400),
    ("cmx", "/config/xml", b"{}", "", 404),
    ("epmx", "/get", b'{"keys": ["a-b"]}', "0010-get-metadata-request", 400),
    ("epmx", "/get", b'{"keys": ["secret"]}', "", 403),
    ("epmx", "/update", b"{}", "0010-update-metadata-request", 400),
    ("epmx", "/update", b'{"a b": 1}', "0010-update-metadata-request", 400),
    ("epmx", "/update", b'{"serial": 1}', "", 403),
    ("epmx", "/update/keys", b'{"serial": 1}', "", 403),
    ("epmx", "/update/keys", b"[1]", "0010-update-metadata-request", 400),
    ("epmx", "/delete/keys", b"[]", "0010-delete-metadata-keys-request", 400),
    ("epmx", "/delete/keys", b'["a", "a"]', "0010-delete-metadata-keys-request", 400),
    ("epmx", "/delete/keys", b'["serial"]', "", 403),
    ("epmx", "/get/nothing", b"", "", 404),
    ("cex", "/command/reboot", b'{"observe": 1}', "0011-command-request", 400),
    ("cex", "/command/reboot", b'{"x": 1}', "0011-command-request", 400),
    ("cex", "/result/reboot", b'{"id": 1}', "0011-result-request", 400),
    ("cex", "/result/reboot", b'{"id": "1", "statusCode": 200}', "0011-result-request", 400),
    ("cex", "/result/reboot", b'{"id": 1, "statusCode": 200}', "", 404),
]


async def test_bad_input(device: Device) -> None:
    """A schema is named where it is what the input breaks."""
    for extension, path, payload, schema, status in BAD_INPUT:
        answer = await device.ask(extension, path, payload)
        assert answer.status == status, (extension, path, payload, answer)
        if schema:
            with suppress(json.JSONDecodeError):
                assert not is_valid(schema, json.loads(payload)), payload


async def test_pushes_over_mqtt(gateway: GatewayProcess, kaa: Platform, new_token: Callable[[], str]) -> None:
    async with mqtt_device(gateway.mqtt_port, new_token()) as device:
        await post(device, "cmx", "/config/json", {"observe": True}, response="0007-config-response")
        await check_pushes(device, kaa)


async def check_pushes(device: MqttDevice, kaa: Platform) -> None:
    config_id = (await kaa.registry.set("app_v1", device.token, "", b'{"interval": 10}')).config_id
    await until(lambda: len(device.pushes) == 1, "the configuration")
    number = await kaa.invoke(device.token, "reboot", b"{}")
    await until(lambda: len(device.pushes) == 2, "the command")
    (config_path, config), (command_path, commands) = device.pushes
    assert (config_path, command_path) == ("/config/json", "/command/reboot")
    validate("0007-config-response", json.loads(config))
    assert json.loads(config) == {"configId": config_id, "config": {"interval": 10}}
    validate("0011-command-response", json.loads(commands))
    assert json.loads(commands) == [{"id": number, "payload": {}}]


async def test_pushes_over_coap(gateway: GatewayProcess, kaa: Platform, new_token: Callable[[], str]) -> None:
    async with (
        coap_device(gateway.coap_port, new_token()) as device,
        observed(device, "cmx", "/config/json") as configurations,
        observed(device, "cex", "/command/reboot") as commands,
    ):
        config_id = (await kaa.registry.set("app_v1", device.token, "", b"5")).config_id
        await until(lambda: len(configurations) == 1, "the configuration")
        assert configurations == [{"configId": config_id, "config": 5}]
        number = await kaa.invoke(device.token, "reboot")
        await until(lambda: len(commands) == 1, "the command")
        assert commands == [[{"id": number}]]


@asynccontextmanager
async def observed(device: CoapDevice, extension: str, path: str) -> AsyncIterator[list[Any]]:
    """Observe a resource path; yields a list that fills with the notifications."""
    request = device.observe(extension, path)
    assert (await asyncio.wait_for(request.response, TIMEOUT_S)).opt.observe is not None
    seen: list[Any] = []

    async def collect() -> None:
        async for notification in request.observation:
            seen.append(json.loads(notification.payload))  # noqa: PERF401 - each as it comes

    collecting = asyncio.create_task(collect())
    try:
        yield seen
    finally:
        collecting.cancel()
