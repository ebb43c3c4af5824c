"""cmx and ecr: what devices are told of their configurations, when, and how often."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kaa_ext import Extension, ExtensionError, Response
from kaa_ext.messages import cdtp
from kaa_ext.services import cmx, ecr
from kaa_ext.testing import Gateway, offline, until
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import decode_extension_data, encode_client_data

APP = "app_v1"
A, B = b'{"a": 1.10}', b'["b"]'


class Services:
    """cmx and ecr in this process, with two replicas of each."""

    def __init__(self, gateway: Gateway, registry: ecr.Registry, consumers: list[Extension]) -> None:
        self.gateway = gateway
        self.registry = registry
        self.consumers = consumers

    async def ask(self, path: str = "/config/json", body: Any = b"", endpoint_id: str = "ep") -> Response:
        return await self.gateway.request("cmx", path, body, endpoint_id=endpoint_id)

    async def json(self, path: str = "/config/json", body: Any = b"") -> Any:
        answer = await self.ask(path, body)
        assert answer.status_code == 200, answer
        return json.loads(answer.payload or b"")

    async def set(self, content: bytes, name: str = "", endpoint_id: str = "ep") -> str:
        return (await self.registry.set(APP, endpoint_id, name, content)).config_id

    async def settle(self) -> None:
        """Return when nothing is on its way: each replica has handled a message that came behind all others."""
        for extension in self.consumers:
            tasks = extension._dispatcher.tasks
            await until(lambda tasks=tasks: not tasks, "quiet")  # type: ignore[misc]
        await asyncio.sleep(0.05)
        for extension in self.consumers:
            tasks = extension._dispatcher.tasks
            await until(lambda tasks=tasks: not tasks, "quiet")  # type: ignore[misc]


@asynccontextmanager
async def services(**settings: Any) -> AsyncIterator[Services]:
    consumers = [Extension("cmx") for _ in range(2)]
    providers = [Extension("ecr") for _ in range(2)]
    for extension in consumers:
        cmx.register(extension, cmx.Settings(**settings))
    for extension in providers:
        ecr.register(extension)
    async with offline(*consumers, *providers) as gateway:
        state = providers[0]._states[ecr.STATE]
        yield Services(gateway, ecr.Registry("ecr", state, providers[0].publish), consumers)


async def test_an_endpoint_without_configuration_has_null() -> None:
    async with services() as kaa:
        assert await kaa.json() == {"configId": "", "config": None}
        assert await kaa.json(body={"configId": ""}) == {}
        assert await kaa.json("/config/json/network") == {"configId": "", "config": None}


async def test_what_is_set_is_told_unless_the_endpoint_has_it() -> None:
    async with services() as kaa:
        config_id = await kaa.set(A)
        answer = await kaa.ask()
        assert answer.payload == b'{"configId":"%s","config":{"a":1.10}}' % config_id.encode()
        assert await kaa.json(body={"configId": "old"}) == {"configId": config_id, "config": {"a": 1.1}}
        assert await kaa.json(body={"configId": config_id, "observe": True}) == {}


async def test_named_configurations_are_apart() -> None:
    async with services() as kaa:
        default, network = await kaa.set(A), await kaa.set(B, "network")
        assert (await kaa.json())["configId"] == default
        assert await kaa.json("/config/json/network") == {"configId": network, "config": ["b"]}
        (one, other) = await kaa.gateway.next_pushes(2)
        assert {one.resource_path, other.resource_path} == {"/config/json", "/config/json/network"}


@pytest.mark.parametrize(
    ("path", "body", "reason_phrase"),
    [
        ("/config/json", b"[]", "Expected object, got array"),
        ("/config/json", b'{"configId": 5}', "Expected str, got int - at configId"),
        ("/config/json", b'{"configId": null}', "Expected str, got null - at configId"),
        ("/config/json", b'{"observe": "yes"}', "Expected bool, got str - at observe"),
        ("/config/json", b'{"more": 1}', "Object contains unknown field more"),
        ("/config/json", b'{"observe": true', "Invalid JSON at byte 16"),
        (
            "/config/json/a.b",
            b"",
            "The name of a configuration has 1 to 128 letters, digits, dashes and underscores",
        ),
        ("/applied/json", b"", "Object missing required field configId"),
        (
            "/applied/json",
            b'{"configId": "a", "statusCode": 99}',
            "Expected a status code, 100 to 599 - at statusCode",
        ),
        (
            "/applied/json",
            b'{"configId": "a", "statusCode": 200.5}',
            "Expected a status code, 100 to 599 - at statusCode",
        ),
        (
            "/applied/json",
            b'{"configId": "a", "statusCode": "1"}',
            "Expected int | float, got str - at statusCode",
        ),
        ("/applied/json", b'{"configId": "a", "reasonPhrase": 1}', "Expected str, got int - at reasonPhrase"),
    ],
)
async def test_bad_input(path: str, body: bytes, reason_phrase: str) -> None:
    async with services() as kaa:
        answer = await kaa.ask(path, body)
        assert (answer.status_code, answer.reason_phrase) == (400, reason_phrase)


async def test_an_endpoint_is_needed() -> None:
    async with services() as kaa:
        for path, body in (("/config/json", b""), ("/applied/json", b'{"configId": "a"}')):
            assert (await kaa.gateway.request("cmx", path, body, endpoint_id=None)).status_code == 400


async def test_a_change_is_pushed_once() -> None:
    async with services() as kaa:
        assert (await kaa.json(body={"observe": True}))["configId"] == ""
        config_id = await kaa.set(A)
        (push,) = await kaa.gateway.next_pushes(1)
        await kaa.settle()
        assert kaa.gateway.pushes == [push]
        assert (push.endpoint_id, push.resource_path) == ("ep", "/config/json")
        assert push.json() == {"configId": config_id, "config": {"a": 1.1}}
        assert push.subject == "kaa.v1.service.kpc.esp.ExtensionData"


async def test_who_does_not_observe_is_pushed_nothing() -> None:
    async with services() as kaa:
        await kaa.json(body={"observe": False})
        await kaa.set(A)
        await kaa.gateway.connect("ep")
        await kaa.settle()
        assert kaa.gateway.pushes == []
        await kaa.json("/config/json", {"observe": True})
        await kaa.set(B)
        await kaa.gateway.next_pushes(1)


async def test_setting_the_same_again_is_the_same_push_and_going_back_is_a_new_one() -> None:
    async with services() as kaa:
        for content in (A, A, B, A):
            await kaa.set(content)
            await kaa.settle()
        first, second, third, fourth = (push.push_id for push in kaa.gateway.pushes)
        assert first == second
        assert len({first, third, fourth}) == 3


async def test_who_connects_is_pushed_what_it_has_missed_through_that_gateway() -> None:
    async with services() as kaa:
        await kaa.json("/config/json/network", {"observe": True})
        await kaa.set(A)
        await kaa.set(B, "network")
        before = await kaa.gateway.next_pushes(2)
        await kaa.gateway.connect("ep", "stranger")
        again = await kaa.gateway.next_pushes(2, after=2)
        await kaa.settle()
        assert len(kaa.gateway.pushes) == 4
        assert {push.push_id for push in before} == {push.push_id for push in again}
        assert {push.subject for push in again} == {"kaa.v1.replica.gateway.esp.ExtensionData"}


async def test_who_connects_is_not_pushed_what_it_has_applied_or_just_been_told() -> None:
    async with services() as kaa:
        config_id = await kaa.set(A)
        await kaa.set(B, "network")
        await kaa.gateway.next_pushes(2)
        await kaa.ask("/applied/json", {"configId": config_id})
        await kaa.json("/config/json/network")
        await kaa.gateway.connect("ep")
        await kaa.settle()
        assert len(kaa.gateway.pushes) == 2


async def test_what_an_endpoint_says_it_has_counts_as_applied() -> None:
    async with services() as kaa:
        config_id = await kaa.set(A)
        assert await kaa.json(body={"configId": config_id}) == {}
        await kaa.gateway.connect("ep")
        await kaa.settle()
        assert len(kaa.gateway.pushes) == 1


async def test_applied_is_told_to_other_services() -> None:
    async with services() as kaa:
        heard = await kaa.gateway.listen(cdtp.applied_subject("cmx"))
        named = await kaa.gateway.listen(cdtp.applied_subject("cmx", "network"))
        body = {"configId": "x", "statusCode": 400, "reasonPhrase": "WPA2 is not supported"}
        answer = await kaa.ask("/applied/json", body)
        assert (answer.status_code, answer.payload) == (200, b"")
        assert (
            await kaa.ask("/applied/json/network", {"configId": "y", "statusCode": 200.0})
        ).status_code == 200
        fields = cdtp.CONFIG_APPLIED.decode(heard[0].data)
        assert (fields["endpointId"], fields["appVersionName"], fields["configId"]) == ("ep", APP, "x")
        assert (fields["statusCode"], fields["reasonPhrase"]) == (400, "WPA2 is not supported")
        assert cdtp.CONFIG_APPLIED.decode(named[0].data)["configId"] == "y"
        assert (len(heard), len(named)) == (1, 1)


async def test_without_provider_the_device_is_told_503() -> None:
    extension = Extension("cmx")
    cmx.register(extension)
    async with offline(extension) as gateway:
        answer = await gateway.request("cmx", "/config/json")
        assert (answer.status_code, answer.reason_phrase) == (503, "A service behind this one is not running")


async def test_a_provider_that_is_silent_is_504_and_one_that_fails_is_502() -> None:
    extension = Extension("cmx")
    cmx.register(extension, cmx.Settings(provider_timeout=0.1))
    async with offline(extension) as gateway:
        requests = await gateway.listen(cdtp.request_subject("ecr"))
        assert (await gateway.request("cmx", "/config/json")).status_code == 504
        for status_code, content_type, content in (
            (500, cdtp.JSON, b"1"),
            (200, "text/plain", b"\xff"),
            (200, cdtp.JSON, None),
        ):
            asking = asyncio.create_task(gateway.request("cmx", "/config/json"))
            count = len(requests)
            await until(lambda count=count: len(requests) > count, "the request")  # type: ignore[misc]
            request = cdtp.CONFIG_REQUEST.decode(requests[-1].data)
            datum = cdtp.CONFIG_RESPONSE.encode(
                correlation_id=request["correlationId"],
                appVersionName=APP,
                endpointId="ep",
                configId="x",
                contentType=content_type,
                content=content,
                statusCode=status_code,
            )
            await gateway.publish(requests[-1].reply, datum)
            assert (await asking).status_code in (502, 504)


@pytest.mark.parametrize(
    ("content_type", "content", "config"),
    [
        ("application/vnd.example+json; charset=utf-8", b'{"a": 1}', {"a": 1}),
        ("Application/JSON", b"[1]", [1]),
        ("text/plain", "grüße\n".encode(), "grüße\n"),
        ("text/yaml; charset=utf-8", b"a: 1", "a: 1"),
        ("application/x-protobuf", b"\x08\x96\x01", "CJYB"),
        ("application/octet-stream", b"", ""),
    ],
)
async def test_content_of_any_type_is_passed_through(content_type: str, content: bytes, config: Any) -> None:
    async with services() as kaa:
        assert await kaa.json() == {"configId": "", "config": None}
        events = await kaa.gateway.listen(cdtp.updated_subject("ecr"))
        stored = await kaa.registry.set(APP, "ep", "", content, content_type)
        (push,) = await kaa.gateway.next_pushes(1)
        assert push.json() == {"configId": stored.config_id, "config": config}
        event = cdtp.CONFIG_UPDATED.decode(events[0].data)
        assert event["contentType"] == content_type
        assert stored.data == event["content"]
        if not cdtp.is_json(content_type):
            assert stored.data == content
        # On request as in the push; from the provider, too, when it is asked.
        assert await kaa.json() == push.json()
        assert await kaa.json(body={"configId": stored.config_id}) == {}
        kept = await kaa.registry.get(APP, "ep", "")
        assert kept is not None
        assert (kept.content_type, kept.data) == (content_type, stored.data)


async def test_content_is_of_its_type() -> None:
    async with services() as kaa:
        for content_type, content in (("text/plain", b"\xff"), (cdtp.JSON, b"{"), ("a/b+json", b"")):
            with pytest.raises(ExtensionError) as raised:
                await kaa.registry.set(APP, "ep", "", content, content_type)
            assert raised.value.status_code == 400
        one = await kaa.registry.set(APP, "ep", "one", b"1", "text/plain")
        assert (await kaa.registry.set(APP, "ep", "one", b"1", "text/csv")).config_id != one.config_id


async def test_default_is_the_name_of_the_configuration_without_name() -> None:
    async with services() as kaa:
        config_id = await kaa.set(A, "default")
        assert await kaa.json() == await kaa.json("/config/json/default")
        (push,) = await kaa.gateway.next_pushes(1)
        assert push.resource_path == "/config/json"
        body = {"configId": config_id}
        assert (await kaa.ask("/applied/json/default", body)).status_code == 200
        assert await kaa.json(body=body) == {}
        assert await kaa.registry.get(APP, "ep", "default") == await kaa.registry.get(APP, "ep", "")


async def test_the_name_in_the_message_of_the_gateway_counts_too() -> None:
    """A gateway may send configName (4/ESP); the name in the path is the same."""
    async with services() as kaa:
        await kaa.set(B, "network")
        datum = encode_client_data("c", now_ms(), 0, APP, "ep", "/config/json", 1, b"{}", "network")
        answers = await kaa.gateway.listen("kaa.v1.replica.g.esp.ExtensionData")
        await kaa.gateway.publish(
            "kaa.v1.service.cmx.esp.ClientData", datum, "kaa.v1.replica.g.esp.ExtensionData"
        )
        await until(lambda: len(answers) == 1, "the answer")
        payload = decode_extension_data(answers[0].data).payload
        assert json.loads(payload or b"")["config"] == ["b"]


async def test_a_provider_whose_events_name_no_configuration() -> None:
    """6/CDTP has no field for it: the provider is asked which configuration of the endpoint has changed."""
    async with services(events_name_configurations=False) as kaa:
        assert await kaa.json() == {"configId": "", "config": None}
        assert await kaa.json("/config/json/network") == {"configId": "", "config": None}
        state = kaa.registry._state

        async def change(content: bytes, name: str) -> str:
            """Set a configuration as a provider that publishes all events on the subject of the RFC."""
            count = len(kaa.gateway.pushes)
            quiet = ecr.Registry("elsewhere", state, kaa.registry._publish)
            changed = await quiet.set(APP, "ep", name, content)
            event = cdtp.CONFIG_UPDATED.encode(
                appVersionName=APP,
                endpointId="ep",
                configId=changed.config_id,
                contentType=cdtp.JSON,
                content=content,
            )
            await kaa.gateway.publish(cdtp.updated_subject("ecr"), event)
            await kaa.gateway.next_pushes(1, after=count)
            await kaa.settle()
            assert len(kaa.gateway.pushes) == count + 1
            return changed.config_id

        network = await change(b"1", "network")
        default = await change(b"2", "")
        other = await change(b"3", "network")
        assert [(each.resource_path, each.json()["configId"]) for each in kaa.gateway.pushes] == [
            ("/config/json/network", network),
            ("/config/json", default),
            ("/config/json/network", other),
        ]
        for _ in range(2):  # by both replicas
            assert (await kaa.json())["configId"] == default
            assert (await kaa.json("/config/json/network"))["configId"] == other


async def test_the_configurations_of_an_endpoint_are_bounded() -> None:
    async with services() as kaa:
        for number in range(cmx.NAMES_MAX):
            assert (await kaa.ask(f"/config/json/n{number}")).status_code == 200
        assert (await kaa.ask("/config/json/more")).status_code == 429
        assert (await kaa.ask("/config/json/n1")).status_code == 200


async def test_a_configuration_must_be_json() -> None:
    async with services() as kaa:
        with pytest.raises(Exception, match="Invalid JSON at byte 1"):
            await kaa.set(b"{")
        with pytest.raises(Exception, match="name of a configuration"):
            await kaa.set(b"{}", "a/b")
