"""What the RFCs ask of the services beyond each device's own resources, over MQTT, HTTP and CoAP.

The gateway is a process of its own; the services run in this one, on a real NATS server. Every message between them is
read by the schema of its RFC. Metadata are kept by another repository, time series go to a receiver of the SDK.

Source: 4/ESP, 6/CDTP, 7/CMP, 10/EPMP, 11/CEP, 13/DSTP, 14/TSTP, 15/EME, 19/EPMMP.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from kaa_ext import Extension
from kaa_ext.messages import cip
from kaa_ext.sdk.lifecycle import Lifecycle
from kaa_ext.sdk.metadata_events import MetadataUpdate, Updated
from kaa_ext.sdk.time_series import TimeSeries
from kaa_ext.services import cex, cmx, dcx, ecr, epmx, epts
from kaa_gateway.bus import elce
from nats.aio.client import Client

from tests.support.devices import TIMEOUT_S, Device, MqttDevice, coap_device, http_device, mqtt_device
from tests.support.esp import until
from tests.support.extensions import APPLICATION
from tests.support.gateway import GatewayProcess, merged
from tests.support.json_schemas import validate
from tests.support.nats import NatsServer
from tests.support.rfc_messages import Checked

NAMED = {"kaa": {"extension-instances": {"cmx": {"endpoint-aware": True, "named-configurations": True}}}}


@pytest.fixture(scope="module")
def jetstream() -> Iterator[NatsServer]:
    with NatsServer(jetstream=True) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(jetstream: NatsServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(jetstream.url, merged(APPLICATION, NAMED)) as process:
        yield process
        assert "Traceback" not in process.log, process.log


class Platform:
    """The services behind the gateway, and a service of ours that hears what they tell."""

    def __init__(self, url: str) -> None:
        self.nats = Client()
        self.listener = Extension("listener", nats_urls=[url])
        self.series: list[TimeSeries] = []
        self.metadata: list[MetadataUpdate] = []
        self.lifecycle: list[Lifecycle] = []
        self.registry: ecr.Registry
        self.checked = Checked(url)

        @self.listener.on_time_series("epts")
        async def receive(series: TimeSeries) -> None:
            self.series.append(series)

        @self.listener.on_metadata("epr")
        async def update(event: MetadataUpdate) -> None:
            self.metadata.append(event)

        @self.listener.on_lifecycle
        async def note(event: Lifecycle) -> None:
            self.lifecycle.append(event)


@pytest.fixture
async def kaa(jetstream: NatsServer) -> AsyncIterator[Platform]:
    services = {
        name: Extension(name, nats_urls=[jetstream.url])
        for name in ("epr", "epts", "dcx", "cmx", "ecr", "epmx", "cex")
    }
    dcx.register(services["dcx"], dcx.Settings(must_confirm=frozenset({"epts"}), confirmation_timeout=30))
    epts.register(
        services["epts"],
        epts.Settings(
            time_series={"place": epts.Series(values={"lat": "at.lat"}, timestamp="ts")},
            auto_extraction=True,
            acknowledgements=1,
            acknowledgement_timeout=25,
        ),
    )
    cmx.register(services["cmx"], cmx.Settings(provider_timeout=30))
    ecr.register(services["ecr"])
    epmx.register(services["epr"])
    epmx.register(services["epmx"], epmx.Settings(repository="epr", repository_timeout=30))
    cex.register(services["cex"])
    platform = Platform(jetstream.url)
    async with AsyncExitStack() as stack:
        await platform.nats.connect(jetstream.url)
        stack.push_async_callback(platform.nats.close)
        await stack.enter_async_context(platform.checked)
        for extension in (*services.values(), platform.listener):
            await stack.enter_async_context(extension)
        state = services["ecr"]._states[ecr.STATE]
        platform.registry = ecr.Registry("ecr", state, services["ecr"].publish)
        yield platform


@pytest.fixture(params=["mqtt", "http", "coap"])
async def device(
    request: pytest.FixtureRequest, gateway: GatewayProcess, kaa: Platform, new_token: Callable[[], str]
) -> AsyncIterator[Device]:
    token = f"{request.param}-{new_token()}"
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


async def post(device: Device, extension: str, path: str, body: Any = None) -> Any:
    """Send JSON, and return that of the answer; None for an empty one."""
    answer = await device.ask(extension, path, b"" if body is None else json.dumps(body).encode())
    assert answer.status == 200, answer
    return answer.json() if answer.payload else None


async def test_a_path_names_the_configuration_in_the_message(device: Device, kaa: Platform) -> None:
    """4/ESP, configName; the resource path stays as the device wrote it."""
    config_id = (await kaa.registry.set("app_v1", device.token, "network", b'{"ssid": "x"}')).config_id
    assert await post(device, "cmx", "/config/json/network", {}) == {
        "configId": config_id,
        "config": {"ssid": "x"},
    }
    client_data = kaa.checked.last["0004-client-data"]
    assert (client_data["configName"], client_data["resourcePath"]) == ("network", "/config/json/network")
    await post(device, "cmx", "/applied/json/network", {"configId": config_id})
    assert kaa.checked.last["0004-client-data"]["configName"] == "network"
    assert await post(device, "cmx", "/config/json", {}) == {"configId": "", "config": None}
    assert kaa.checked.last["0004-client-data"]["configName"] is None
    await until(lambda: kaa.checked.seen["0006-config-applied"] == 1, "the event")


async def test_a_configuration_that_is_not_json(device: Device, kaa: Platform) -> None:
    """6/CDTP, contentType."""
    await kaa.registry.set("app_v1", device.token, "", b"\x00\x01", "application/x-protobuf")
    answer = await post(device, "cmx", "/config/json", {})
    validate("0007-config-response", answer)
    assert answer["config"] == "AAE="
    assert kaa.checked.last["0006-config-updated"]["contentType"] == "application/x-protobuf"


async def test_metadata_that_another_repository_keeps(device: Device, kaa: Platform) -> None:
    """19/EPMMP: the client is epmx, the repository another service; 15/EME comes from there."""
    await post(device, "epmx", "/update", {"name": "Sensor 1", "cores": 2})
    await post(device, "epmx", "/update/keys", {"cores": 4, "at": {"lat": 27.6}})
    assert sorted(await post(device, "epmx", "/get/keys")) == ["at", "cores", "name"]
    assert await post(device, "epmx", "/get", {"keys": ["cores", "absent"]}) == {"cores": 4}
    await post(device, "epmx", "/delete/keys", ["name", "absent"])
    assert await post(device, "epmx", "/get") == {"cores": 4, "at": {"lat": 27.6}}
    await until(lambda: len(kaa.metadata) == 3, "the events")
    first, second, third = sorted(kaa.metadata, key=lambda event: event.timestamp)
    assert first.added == {"name": "Sensor 1", "cores": 2}
    assert (second.updated, second.added) == ({"cores": Updated(2, 4)}, {"at": {"lat": 27.6}})
    assert third.removed == {"name": "Sensor 1"}
    assert {event.endpoint_id for event in kaa.metadata} == {device.token}
    seen = kaa.checked.seen
    assert seen["0019-endpoint-metadata-patch-request"] == seen["0019-endpoint-metadata-patch-response"] == 3
    assert seen["0019-endpoint-metadata-keys-get-request"] == 1
    assert seen["0019-endpoint-metadata-get-request"] == seen["0019-endpoint-metadata-get-response"] == 5


async def test_time_series_of_a_device_reach_their_receiver_before_it_hears_200(
    device: Device, kaa: Platform
) -> None:
    """14/TSTP."""
    body = [{"ts": 5, "t": 21.5, "at": {"lat": 27.6}}, {"t": 22}]
    assert await post(device, "dcx", "/json", body) is None
    by_name = {each.name: each for each in kaa.series}
    assert set(by_name) == {"place", "auto~t", "auto~ts"}
    assert [(each.timestamp, dict(each.values)) for each in by_name["place"].points] == [(5, {"lat": 27.6})]
    assert [dict(each.values) for each in by_name["auto~t"].points] == [{"value": 21.5}, {"value": 22}]
    assert {(each.endpoint_id, each.app_version_name) for each in kaa.series} == {(device.token, "app_v1")}
    seen = kaa.checked.seen
    await until(lambda: seen["0014-ep-time-series-processed"] == 3, "the acknowledgements")
    assert seen["0014-ep-time-series-event"] == 3


async def test_commands_of_all_types(device: Device, kaa: Platform) -> None:
    """11/CEP, the resource `/command` without type."""
    for number, kind in ((1, "reboot"), (2, "blink")):
        datum = cip.COMMAND_REQUEST.encode(
            endpointId=device.token, commandType=kind, commandId=number, payload=b"{}"
        )
        await kaa.nats.publish(cip.request_subject("cex"), datum)
    while len(found := await post(device, "cex", "/command", {"observe": True})) < 2:
        await asyncio.sleep(0.01)
    assert sorted(found, key=lambda each: each["id"]) == [
        {"id": 1, "type": "reboot", "payload": {}},
        {"id": 2, "type": "blink", "payload": {}},
    ]
    await post(device, "cex", "/result/reboot", {"id": 1, "statusCode": 200})
    assert [each["id"] for each in await post(device, "cex", "/command")] == [2]
    if isinstance(device, MqttDevice):
        datum = cip.COMMAND_REQUEST.encode(
            endpointId=device.token, commandType="blink", commandId=3, payload=None
        )
        await kaa.nats.publish(cip.request_subject("cex"), datum)
        await until(lambda: ("/command", b'[{"id":3,"type":"blink"}]') in device.pushes, "the push")


async def test_commands_of_all_types_are_observed_over_coap(
    gateway: GatewayProcess, kaa: Platform, new_token: Callable[[], str]
) -> None:
    async with coap_device(gateway.coap_port, new_token()) as device:
        await post(device, "cex", "/command", {"observe": True})
        request = device.observe("cex", "/command")
        assert (await asyncio.wait_for(request.response, TIMEOUT_S)).opt.observe is not None
        datum = cip.COMMAND_REQUEST.encode(
            endpointId=device.token, commandType="blink", commandId=7, payload=None
        )
        await kaa.nats.publish(cip.request_subject("cex"), datum)
        async with asyncio.timeout(TIMEOUT_S):
            async for notification in request.observation:
                assert json.loads(notification.payload) == [{"id": 7, "type": "blink"}]
                break


async def test_lifecycle_events_heard_by_an_extension(kaa: Platform) -> None:
    """9/ELCE, from any service."""
    for kind, event in (
        (elce.REGISTERED, elce.REGISTERED_EVENT),
        (elce.UNREGISTERED, elce.UNREGISTERED_EVENT),
    ):
        datum = event.encode(appVersionName="app_v1", endpointId="e", originatorReplicaId="r")
        await kaa.nats.publish(elce.lifecycle_subject("registry", kind), datum)
    await until(lambda: len(kaa.lifecycle) == 2, "the events")
    assert {(each.kind, each.endpoint_id) for each in kaa.lifecycle} == {
        ("registered", "e"),
        ("unregistered", "e"),
    }
