"""19/EPMMP, the repository: what other services may do with the metadata that epmx keeps.

Source: 19/EPMMP "Endpoint Metadata Management Protocol"; RFC 6902 "JSON Patch".
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kaa_ext import Extension
from kaa_ext.messages import eme, epmmp
from kaa_ext.services import epmx
from kaa_ext.services.epmx.json_patch import OPERATIONS_MAX
from kaa_ext.testing import Gateway, offline, until
from kaa_gateway.bus import elce, subjects
from kaa_gateway.bus.messages import Exchange
from nats.aio.msg import Msg

REPLY = "kaa.v1.replica.client.epmmp"
TIMEOUT_S = 110.0
"""A patch that grows beyond all bounds takes long under a sanitizer, beside other tests."""


class Client:
    """Another service. `events` has the events of 15/EME."""

    def __init__(self, gateway: Gateway, answers: list[Msg], events: list[Msg]) -> None:
        self.gateway = gateway
        self.events = events
        self._answers = answers

    async def ask(self, exchange: Exchange, **fields: Any) -> dict[str, Any]:
        count = len(self._answers)
        request = exchange.request
        await self.gateway.publish(
            subjects.service("epmx", "epmmp", request.subject),
            request.type.encode(correlation_id="c", **fields),
            f"{REPLY}.{exchange.answer.subject}",
        )
        await until(lambda: len(self._answers) > count, "an answer", TIMEOUT_S)
        message = self._answers[count]
        assert message.subject == f"{REPLY}.{exchange.answer.subject}"
        answer = exchange.answer.type.decode(message.data)
        assert answer["correlationId"] == "c"
        return answer

    async def get(self, endpoint_id: str = "e", *include: str, metadata: bool = True) -> dict[str, Any]:
        return await self.ask(
            epmmp.GET, endpointId=endpoint_id, include=list(include), includeMetadata=metadata
        )

    async def becomes(self, exchange: Exchange, field: str, value: Any, **request: Any) -> None:
        """Ask until a field of the answer has a value."""
        for _ in range(100):
            answer = await self.ask(exchange, **request)
            assert answer["statusCode"] == 200
            if answer[field] == value:
                return
        assert answer[field] == value

    async def app_version_becomes(self, name: str | None) -> None:
        await self.becomes(
            epmmp.GET, "appVersionName", name, endpointId="e", include=[], includeMetadata=True
        )

    async def patch(self, *operations: dict[str, Any], if_match: str | None = None) -> int:
        answer = await self.ask(
            epmmp.PATCH, endpointId="e", ifMatch=if_match, patch=json.dumps(operations).encode()
        )
        status: int = answer["statusCode"]
        assert (answer["reasonPhrase"] is None) == (status == 200)
        return status

    async def metadata(self, endpoint_id: str = "e") -> Any:
        return json.loads((await self.get(endpoint_id))["payload"])


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    extension = Extension("epmx")
    epmx.register(extension, epmx.Settings(access={"serial": "read"}))
    async with offline(extension) as gateway:
        events = await gateway.listen(eme.event_subject("epmx"))
        yield Client(gateway, await gateway.listen(f"{REPLY}.*"), events)


async def test_what_a_device_wrote_is_read_and_the_other_way_round(client: Client) -> None:
    await client.gateway.request("epmx", "/update", b'{"a": 1.50, "b": {"c": [true]}}', endpoint_id="e")
    answer = await client.get()
    assert (answer["statusCode"], answer["payload"]) == (200, b'{"a":1.50,"b":{"c":[true]}}')
    assert (await client.get("e", "b", "absent"))["payload"] == b'{"b":{"c":[true]}}'
    assert (await client.get(metadata=False))["payload"] is None
    keys = await client.ask(epmmp.GET_KEYS, endpointId="e")
    assert (keys["endpointId"], keys["keys"]) == ("e", ["a", "b"])
    # What devices may only read, services write.
    assert await client.patch({"op": "add", "path": "/serial", "value": "x-1"}) == 200
    device = await client.gateway.request("epmx", "/get", endpoint_id="e")
    assert json.loads(device.payload or b"") == {"a": 1.5, "b": {"c": [True]}, "serial": "x-1"}
    # The text of what the patch does not touch is as it was.
    assert b"1.50" in (device.payload or b"")


async def test_an_endpoint_without_metadata(client: Client) -> None:
    answer = await client.get("nobody")
    assert (answer["statusCode"], answer["payload"], answer["appVersionName"]) == (200, b"{}", None)
    assert (await client.ask(epmmp.GET_KEYS, endpointId="nobody"))["keys"] == []


async def test_the_entity_tag_changes_with_the_metadata(client: Client) -> None:
    first = (await client.get())["eTag"]
    assert await client.patch({"op": "add", "path": "/a", "value": 1}, if_match=first) == 200
    second = (await client.get())["eTag"]
    assert second != first
    assert await client.patch({"op": "add", "path": "/a", "value": 2}, if_match=first) == 412
    assert await client.metadata() == {"a": 1}
    for if_match in (f'"{second}"', f'W/"{second}", "x"', "*", None):
        assert await client.patch({"op": "test", "path": "/a", "value": 1}, if_match=if_match) == 200
    assert await client.patch({"op": "replace", "path": "/a", "value": 3}, if_match=second) == 200
    assert await client.metadata() == {"a": 3}


@pytest.mark.parametrize(
    ("operations", "status", "after"),
    [
        ([], 200, {"a": 1, "b": [1, 2]}),
        ([{"op": "remove", "path": "/a"}], 200, {"b": [1, 2]}),
        ([{"op": "replace", "path": "/a", "value": None}], 200, {"a": None, "b": [1, 2]}),
        ([{"op": "add", "path": "/b/-", "value": 3}], 200, {"a": 1, "b": [1, 2, 3]}),
        ([{"op": "move", "from": "/a", "path": "/c"}], 200, {"b": [1, 2], "c": 1}),
        ([{"op": "copy", "from": "/a", "path": "/b/0"}], 200, {"a": 1, "b": [1, 1, 2]}),
        ([{"op": "add", "path": "/a", "value": True}], 200, {"a": True, "b": [1, 2]}),
        ([{"op": "remove", "path": "/absent"}], 409, None),
        ([{"op": "test", "path": "/a", "value": 2}], 409, None),
        # All or nothing.
        ([{"op": "remove", "path": "/a"}, {"op": "test", "path": "/b", "value": 0}], 409, None),
        ([{"op": "replace", "path": "", "value": [1]}], 400, None),
        ([{"op": "add", "path": "/a-b", "value": 1}], 400, None),
        ([{"op": "add", "path": "/", "value": 1}], 400, None),
        ([{"op": "unknown", "path": "/a"}], 400, None),
        ([{"op": "add", "path": "a", "value": 1}], 400, None),
        ([{"op": "add", "path": "/a"}], 400, None),
        ([{"op": ["add"], "path": {"x": 1}}], 400, None),
        ([{}], 400, None),
        ([{"op": "copy", "from": "/b", "path": "/b/-"}] * 40, 413, None),
        (
            [{"op": "copy", "from": "/b", "path": "/b/-"}] * 2,
            200,
            {"a": 1, "b": [1, 2, [1, 2], [1, 2, [1, 2]]]},
        ),
        ([{"op": "test", "path": "/a", "value": 1}] * (OPERATIONS_MAX + 1), 413, None),
        ([{"op": "add", "path": "/a", "value": "x" * epmx.SIZE_MAX}], 413, None),
    ],
)
async def test_patches(client: Client, operations: list[dict[str, Any]], status: int, after: Any) -> None:
    await client.gateway.request("epmx", "/update", {"a": 1, "b": [1, 2]}, endpoint_id="e")
    assert await client.patch(*operations) == status
    assert await client.metadata() == (after or {"a": 1, "b": [1, 2]})


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        (b'{"op": "add", "path": "/a", "value": 1.10}', b'{"a":1.10,"b":{"c":[2.50]}}'),
        (b'{"op": "replace", "path": "/a", "value": [1e5, -0.0]}', b'{"a":[1e5,-0.0],"b":{"c":[2.50]}}'),
        (
            b'{"op": "add", "path": "/b/c/-", "value": 123456789012345678901234567890.0}',
            b'{"a":1.0,"b":{"c":[2.50,123456789012345678901234567890.0]}}',
        ),
        (b'{"op": "copy", "from": "/b/c/0", "path": "/a"}', b'{"a":2.50,"b":{"c":[2.50]}}'),
        # Other texts of the same number pass a test.
        (b'{"op": "test", "path": "/a", "value": 1}', b'{"a":1.0,"b":{"c":[2.50]}}'),
        (b'{"op": "test", "path": "/b/c/0", "value": 25e-1}', b'{"a":1.0,"b":{"c":[2.50]}}'),
    ],
)
async def test_a_patch_keeps_the_text_of_numbers(client: Client, operation: bytes, after: bytes) -> None:
    await client.gateway.request("epmx", "/update", b'{"a": 1.0, "b": {"c": [2.50]}}', endpoint_id="e")
    answer = await client.ask(epmmp.PATCH, endpointId="e", ifMatch=None, patch=b"[" + operation + b"]")
    assert answer["statusCode"] == 200
    assert (await client.get("e"))["payload"] == after


async def test_a_true_is_not_one(client: Client) -> None:
    await client.gateway.request("epmx", "/update", b'{"a": 1.0}', endpoint_id="e")
    assert await client.patch({"op": "test", "path": "/a", "value": True}) == 409


@pytest.mark.parametrize("patch", [b"", b"{}", b"[1]", b"no JSON", b'[{"op": "add"', b"\xff"])
async def test_what_is_no_patch(client: Client, patch: bytes) -> None:
    answer = await client.ask(epmmp.PATCH, endpointId="e", ifMatch=None, patch=patch)
    assert (answer["statusCode"], answer["endpointId"]) == (400, "e")


async def test_single_keys_of_one_and_of_many_endpoints(client: Client) -> None:
    one = await client.ask(epmmp.UPDATE_KEY, endpointId="e", metadataKey="a", metadataValue=b' {"x": 1} ')
    assert (one["statusCode"], one["endpointId"]) == (200, "e")
    many = await client.ask(
        epmmp.UPDATE_KEYS,
        commands=[
            {"endpointId": endpoint_id, "metadataKey": key, "metadataValue": b"2"}
            for endpoint_id, key in (("e", "b"), ("f", "a"), ("e", "c"))
        ],
    )
    assert many["statusCode"] == 200
    assert await client.metadata() == {"a": {"x": 1}, "b": 2, "c": 2}
    assert await client.metadata("f") == {"a": 2}
    assert len(client.events) == 4


@pytest.mark.parametrize(("key", "value"), [("", b"1"), ("a-b", b"1"), ("a", b""), ("a", b"{"), ("a", b"x")])
async def test_a_wrong_key_or_value(client: Client, key: str, value: bytes) -> None:
    command = {"endpointId": "e", "metadataKey": key, "metadataValue": value}
    assert (await client.ask(epmmp.UPDATE_KEY, **command))["statusCode"] == 400
    assert (await client.ask(epmmp.UPDATE_KEYS, commands=[command]))["statusCode"] == 400
    assert client.events == []


async def test_application_versions_are_those_of_connections(client: Client) -> None:
    await client.gateway.connect("e", "f", app_version_name="app_v1")
    await client.gateway.connect("f", "g", app_version_name="app_v2")
    await client.gateway.disconnect("e")

    asked = ["e", "f", "g", "nobody"]
    expected = {"app_v1": ["e"], "app_v2": ["f", "g"]}
    await client.becomes(epmmp.GET_APP_VERSIONS, "appVersionsToEndpoints", expected, endpointIds=asked)
    assert (await client.get("f"))["appVersionName"] == "app_v2"
    await client.ask(epmmp.UPDATE_KEY, endpointId="f", metadataKey="a", metadataValue=b"1")
    (event,) = map(eme.METADATA_UPDATED.decode, (message.data for message in client.events))
    assert (event["appVersionName"], event["endpointId"], event["added"]) == ("app_v2", "f", {"a": "1"})


async def test_lifecycle_events_of_other_services(client: Client) -> None:
    await client.ask(epmmp.UPDATE_KEY, endpointId="e", metadataKey="a", metadataValue=b"1")
    registered = elce.REGISTERED_EVENT.encode(
        appVersionName="app_v1", endpointId="e", originatorReplicaId="epr-1"
    )
    await client.gateway.publish(elce.lifecycle_subject("epr", elce.REGISTERED), registered)
    await client.app_version_becomes("app_v1")
    updated = elce.APP_VERSION_UPDATED_EVENT.encode(
        appVersionName="app_v2", previousAppVersionName="app_v1", endpointId="e", originatorReplicaId="epr-1"
    )
    await client.gateway.publish(elce.lifecycle_subject("epr", elce.APP_VERSION_UPDATED), updated)
    await client.app_version_becomes("app_v2")
    gone = elce.UNREGISTERED_EVENT.encode(
        appVersionName="app_v2", endpointId="e", originatorReplicaId="epr-1"
    )
    await client.gateway.publish(elce.lifecycle_subject("epr", elce.UNREGISTERED), gone)
    await client.app_version_becomes(None)
    assert await client.metadata() == {}
    event = eme.METADATA_UPDATED.decode(client.events[-1].data)
    assert (event["appVersionName"], event["removed"]) == ("app_v2", {"a": "1"})
