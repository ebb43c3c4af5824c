"""The REST API over real services: a script that knows the OpenAPI document only, with devices over each transport."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from kaa_ext.operations import samples as operations
from kaa_ext.rest.server import RestServer, Settings
from kaa_ext.rest.services import Instances
from kaa_gateway.bus.messages import now_ms

from tests.support.devices import Device, MqttDevice, coap_device, http_device, mqtt_device
from tests.support.extensions import APPLICATION, kaa_ext, running
from tests.support.gateway import GatewayProcess, merged
from tests.support.nats import HOST, NatsServer
from tests.support.rest import Api, serving

VERSION = "app_v1"
SERVICES = ("auth", "cex", "cmx", "dcx", "ecr", "epmx", "epts")
TOKEN = "a-token-of-24-characters"
TIMEOUT_S = 30.0

Connect = Callable[[GatewayProcess, str], AbstractAsyncContextManager[Device]]
CONNECT: dict[str, Connect] = {
    "mqtt": lambda gateway, token: mqtt_device(gateway.mqtt_port, token),
    "http": lambda gateway, token: http_device(gateway.http_port, token),
    "coap": lambda gateway, token: coap_device(gateway.coap_port, token),
}


@asynccontextmanager
async def api_of(nats_url: str, *options: str, **client: Any) -> AsyncIterator[Api]:
    async with (
        serving(nats_url, *options) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, **client) as http,
    ):
        yield await Api.read(http)


@asynccontextmanager
async def platform(**changes: Any) -> AsyncIterator[tuple[NatsServer, GatewayProcess, Api]]:
    with NatsServer(jetstream=True) as nats:
        async with running(*SERVICES, nats_url=nats.url), api_of(nats.url) as api:
            with GatewayProcess(nats.url, merged(APPLICATION, changes)) as gateway:
                yield nats, gateway, api


async def execute(device: Device, kind: str, answer: Any) -> Any:
    """Fetch the outstanding command of a type, send a result, and return the payload of the command."""
    command: list[dict[str, Any]] = []

    async def fetched() -> bool:
        command[:] = (await device.ask("cex", f"/command/{kind}")).json()
        return bool(command)

    async with asyncio.timeout(TIMEOUT_S):
        while not await fetched():
            await asyncio.sleep(0.05)
    result = {"id": command[0]["id"], "statusCode": 200, "reasonPhrase": "Done", "payload": answer}
    assert (await device.ask("cex", f"/result/{kind}", json.dumps(result).encode())).status == 200
    return command[0].get("payload")


async def test_the_whole_round_by_the_document_alone() -> None:
    """Set a configuration that the device gets, send a command that it answers, query what it has sent."""
    async with platform() as (_, gateway, api):
        for transport, connect in CONNECT.items():
            endpoint = f"by-{transport}"
            async with connect(gateway, endpoint) as device:
                await configure(api, device, endpoint)
                await command(api, device, endpoint)
                await metadata(api, device, endpoint)
                await samples(api, device, endpoint)
        assert (await api.ok("listTokens"))["tokens"] == []


async def configure(api: Api, device: Device, endpoint: str) -> None:
    where = {"endpoint": endpoint, "version": VERSION}
    assert (await api.call("getConfiguration", **where)).status_code == 404
    config = {"interval": 10, "threshold": 1.25}
    set_ = await api.ok("setConfiguration", config, **where)
    assert set_["config"] == config
    if isinstance(device, MqttDevice):
        await device.ask("cmx", "/config/json")  # it speaks for the endpoint from now on
    got = (await device.ask("cmx", "/config/json")).json()
    assert got in ({"configId": set_["configId"], "config": config}, {})
    (status,) = (await api.ok("getConfigurationStatus", **where))["configurations"]
    assert (status["name"], status["status"], status["configId"]) == ("", "pending", set_["configId"])
    applied = {"configId": set_["configId"], "statusCode": 200}
    assert (await device.ask("cmx", "/applied/json", json.dumps(applied).encode())).status == 200
    (status,) = (await api.ok("getConfigurationStatus", **where))["configurations"]
    assert (status["status"], status["applied"]["configId"]) == ("applied", set_["configId"])
    assert (await api.ok("getConfiguration", **where)) == set_
    named = await api.ok("setConfiguration", [1, 2], name="network", **where)
    assert (await api.ok("getConfiguration", name="network", **where))["configId"] == named["configId"]
    assert (await device.ask("cmx", "/config/json/network")).json()["config"] == [1, 2]


async def command(api: Api, device: Device, endpoint: str) -> None:
    waiting = asyncio.create_task(
        api.call("invokeCommand", {"delay": 5}, endpoint=endpoint, type="reboot", awaitTimeout=30)
    )
    assert await execute(device, "reboot", {"volts": 3.3}) == {"delay": 5}
    answer = await waiting
    assert answer.status_code == 200
    result = answer.json()["result"]
    assert (result["statusCode"], result["reasonPhrase"]) == (200, "Done")
    assert (result["payload"], result["appVersion"]) == ({"volts": 3.3}, VERSION)
    later = await api.call("invokeCommand", endpoint=endpoint, type="blink", awaitTimeout=0)
    assert later.status_code == 202
    number = later.json()["id"]
    assert later.headers["Location"].endswith(f"/commands/blink/{number}")
    (listed,) = (await api.ok("listCommands", endpoint=endpoint))["commands"]
    assert (listed["type"], listed["id"], listed["status"]) == ("blink", number, "outstanding")
    where = {"endpoint": endpoint, "type": "blink", "id": number}
    assert (await api.ok("getCommand", **where))["result"] is None
    waiting = asyncio.create_task(api.call("getCommand", awaitTimeout=30, **where))
    assert await execute(device, "blink", None) is None
    assert (await waiting).json()["status"] == "completed"
    assert (await api.call("getCommand", **{**where, "id": number ^ 1})).status_code == 404
    first = await api.ok("listCommands", endpoint=endpoint, status="completed", limit=1)
    second = await api.ok("listCommands", endpoint=endpoint, status="completed", limit=1, start=first["next"])
    assert [each["commands"][0]["type"] for each in (first, second)] == ["reboot", "blink"]
    assert second["next"] is None
    brief = await api.call("invokeCommand", endpoint=endpoint, type="x", commandTtl=1, awaitTimeout=30)
    assert (brief.status_code, brief.json()["status"]) == (200, "expired")


async def metadata(api: Api, device: Device, endpoint: str) -> None:
    assert await api.ok("getMetadata", endpoint=endpoint) == {}
    where = {"endpoint": endpoint, "appVersion": VERSION}
    assert await api.ok("updateMetadata", {"floor": 3, "name": "pump"}, **where) == {
        "floor": 3,
        "name": "pump",
    }
    assert (await device.ask("epmx", "/get")).json() == {"floor": 3, "name": "pump"}
    assert (await device.ask("epmx", "/update/keys", b'{"floor": 4}')).status == 200
    await api.call("deleteMetadataKey", key="name", **where)
    assert await api.ok("getMetadata", endpoint=endpoint) == {"floor": 4}


async def samples(api: Api, device: Device, endpoint: str) -> None:
    where = {"endpoint": endpoint}
    assert (await api.ok("querySamples", **where)) == {"samples": [], "next": None}
    assert (await api.call("getLastValue", metric="t", **where)).status_code == 404
    sent: list[Any] = [{"t": 20.5, "on": True}, {"t": 21.5}, 7, {"t": "warm"}, {"t": 24}]
    assert (await device.ask("dcx", "/json", json.dumps(sent[:3]).encode())).status == 200
    for each in sent[3:]:
        assert (await device.ask("dcx", "/json", json.dumps(each).encode())).status == 200

    async def stored() -> list[Any]:
        return [each["sample"] for each in (await api.ok("querySamples", **where))["samples"]]

    async with asyncio.timeout(TIMEOUT_S):
        while await stored() != sent:
            await asyncio.sleep(0.05)
    pages: list[list[Any]] = []
    start: dict[str, str] | None = {}
    while start is not None:
        page = await api.ok("queryTimeSeries", metric="t", limit=2, **start, **where)
        pages.append([each["value"] for each in page["points"]])
        start = {"start": page["next"]} if page["next"] else None
    assert pages == [[20.5, 21.5], ["warm", 24]]
    last = await api.ok("getLastValue", metric="t", **where)
    assert last["value"] == 24
    assert (await api.ok("getLastValue", metric="on", **where))["value"] is True
    first = (await api.ok("querySamples", limit=1, **where))["samples"][0]
    assert first["appVersion"] == VERSION
    span = {"from_": first["timestamp"], "to": last["timestamp"]}
    (period,) = (await api.ok("downsampleTimeSeries", metric="t", period=3_600_000, **span, **where))[
        "periods"
    ]
    assert (period["count"], period["minimum"], period["maximum"]) == (3, 20.5, 24)
    assert period["average"] == pytest.approx(22.0)
    assert period["timestamp"] == first["timestamp"]
    later = await api.ok("querySamples", from_=last["timestamp"] + 1, **where)
    assert later["samples"] == []
    assert (await api.ok("querySamples", appVersion="app_v2", **where))["samples"] == []
    fine = await api.ok("downsampleTimeSeries", metric="t", from_=0, period=1, **where)
    assert fine["period"] > 1


async def test_tokens_let_devices_in_until_they_are_revoked() -> None:
    changes = {
        "kaa": {
            "kpc": {
                "identity": {
                    "provider": "ecap",
                    "ecap": {"service-instance": "auth", "negative-cache-ttl": 0},
                }
            }
        }
    }
    async with platform(**changes) as (_, gateway, api):
        added = [
            await api.ok("addToken", {"application": "app", "endpointId": f"pump-{number}"})
            for number in range(3)
        ]
        token = added[0]["token"]
        expires = now_ms() + 3_600_000
        mine = {"application": "app", "endpointId": "mine", "token": "my-own-token", "expires": expires}
        assert (await api.ok("addToken", mine))["token"] == "my-own-token"
        listed, start = [], 0
        while start is not None:
            page = await api.ok("listTokens", limit=2, start=start)
            listed += page["tokens"]
            start = page["next"]
        assert [each["endpointId"] for each in listed] == ["pump-0", "pump-1", "pump-2", "mine"]
        assert [each["id"] for each in listed[:3]] == [each["id"] for each in added]
        assert [each["expires"] for each in listed] == [None, None, None, expires]
        assert token not in json.dumps(listed)
        async with http_device(gateway.http_port, token) as device:
            assert (await device.ask("epmx", "/get")).status == 200
            await api.call("revokeToken", id=added[0]["id"])

            async def refused() -> bool:
                return (await device.ask("epmx", "/get")).status in (401, 403)

            async with asyncio.timeout(TIMEOUT_S):
                while not await refused():
                    await asyncio.sleep(0.05)
        statuses = {each["id"]: each["status"] for each in (await api.ok("listTokens"))["tokens"]}
        assert statuses[added[0]["id"]] == "Revoked"
        assert (await api.call("revokeToken", id="t-000000000000")).status_code == 404


async def test_the_commands_of_the_shell_see_the_same() -> None:
    with NatsServer(jetstream=True) as nats:
        async with running(*SERVICES, nats_url=nats.url), api_of(nats.url) as api:
            where = {"endpoint": "ep", "version": VERSION}
            await api.ok("setConfiguration", {"a": 1}, **where)
            code, output, _ = await kaa_ext(
                "config", "get", "ep", "--app-version", VERSION, nats_url=nats.url
            )
            assert (code, json.loads(output)) == (0, {"a": 1})
            await kaa_ext("config", "set", "ep", "[2]", "--app-version", VERSION, nats_url=nats.url)
            assert (await api.ok("getConfiguration", **where))["config"] == [2]
            await kaa_ext("command", "send", "ep", "reboot", nats_url=nats.url)
            (command,) = (await api.ok("listCommands", endpoint="ep"))["commands"]
            assert command["type"] == "reboot"


async def test_configurations_that_are_not_json() -> None:
    kinds = {
        "text/plain; charset=utf-8": ("größer".encode(), "größer"),
        "application/octet-stream": (b"\x00\xff", "AP8="),
        "application/vnd.kaa+json": (b'{"a": 1.10}', {"a": 1.1}),
        "application/json; charset=utf-8": (b"[2.0]", [2.0]),
    }
    async with platform() as (_, gateway, api), mqtt_device(gateway.mqtt_port, "ep") as device:
        url = f"/api/v1/endpoints/ep/app-versions/{VERSION}/configuration"
        for content_type, (content, shown) in kinds.items():
            answer = await api.client.put(url, content=content, headers={"Content-Type": content_type})
            assert answer.status_code == 200, answer.text
            expected = "application/json" if "application/json" in content_type else content_type
            assert (answer.json()["config"], answer.json()["contentType"]) == (shown, expected)
            found = await api.ok("getConfiguration", endpoint="ep", version=VERSION)
            assert found == answer.json()

            async def fetched(config: Any = shown) -> bool:
                answered = (await device.ask("cmx", "/config/json")).json()
                return bool(answered["config"] == config)

            async with asyncio.timeout(TIMEOUT_S):
                while not await fetched():
                    await asyncio.sleep(0.05)
        for content_type, content, status in (
            ("text/plain", b"\xff", 400),
            ("application/json", b"{", 400),
            ("application/x-kaa+json", b"no JSON", 400),
            ("text", b"x", 415),
            ("", b"x", 415),
        ):
            answer = await api.client.put(url, content=content, headers={"Content-Type": content_type})
            assert answer.status_code == status, content_type


async def test_metadata_of_another_repository() -> None:
    """19/EPMMP: the repository `epr` has the metadata, not epmx."""
    where = {"endpoint": "ep", "appVersion": VERSION}
    with NatsServer(jetstream=True) as nats:
        async with api_of(nats.url, "--epmx-repository", "epr") as api:
            problem = (await api.call("getMetadata", endpoint="ep")).json()
            assert (problem["status"], problem["detail"]) == (503, "no replica of epr is running")
            async with running("epr=epmx", nats_url=nats.url):
                assert await api.ok("getMetadata", endpoint="ep") == {}
                assert await api.ok("updateMetadata", {"floor": 3}, **where) == {"floor": 3}
                shell = ("ep", "--repository", "epr")
                await kaa_ext(
                    *("metadata", "set", *shell, '{"limit": 1.10}'),
                    "--app-version",
                    VERSION,
                    nats_url=nats.url,
                )
                await api.call("deleteMetadataKey", key="floor", **where)
                answer = await api.call("getMetadata", endpoint="ep")
                assert answer.content == b'{"limit":1.10}'
                code, output, _ = await kaa_ext("metadata", "get", *shell, nats_url=nats.url)
                assert (code, output.split()) == (0, ["{", '"limit":', "1.10", "}"])


async def test_problems_name_the_field() -> None:
    with NatsServer(jetstream=True) as nats:
        async with running(*SERVICES, nats_url=nats.url), api_of(nats.url) as api:

            async def wrong(name: str, body: Any = None, /, **parameters: Any) -> tuple[int, str, str]:
                problem = (await api.call(name, body, **parameters)).json()
                (error, *_) = problem["errors"]
                return problem["status"], error["place"], error["field"]

            where = {"endpoint": "ep", "appVersion": VERSION}
            assert await wrong("querySamples", endpoint="ep", limit=0) == (400, "query", "limit")
            assert await wrong("querySamples", endpoint="ep", from_="now") == (400, "query", "from")
            assert await wrong("querySamples", endpoint="ep", start="x") == (400, "query", "start")
            assert await wrong("queryTimeSeries", endpoint="ep") == (400, "query", "metric")
            assert await wrong("querySamples", endpoint="a b") == (400, "path", "endpoint")
            assert await wrong("invokeCommand", endpoint="ep", type="x", awaitTimeout=61) == (
                400, "query", "awaitTimeout",
            )  # fmt: skip
            assert await wrong("invokeCommand", endpoint="ep", type="a.b") == (400, "path", "type")
            assert await wrong("updateMetadata", {"ok": 1, "not-ok": 2}, **where) == (400, "body", "not-ok")
            assert await wrong("updateMetadata", [1], **where) == (400, "body", "")
            await api.ok("updateMetadata", {"a": "x" * 300_000}, **where)
            assert await wrong("updateMetadata", {"b": "x" * 300_000}, **where) == (413, "body", "")
            assert await wrong("updateMetadata", {"b": "x" * 600_000}, **where) == (413, "body", "")
            assert await wrong("addToken", {"application": "app"}) == (400, "body", "endpointId")
            token = {"application": "app", "endpointId": "ep", "token": "a-token-of-mine"}
            await api.ok("addToken", token)
            assert await wrong("addToken", token) == (409, "body", "token")
            assert await wrong("addToken", {**token, "extra": 1}) == (400, "body", "extra")
            assert await wrong("addToken", {**token, "expires": -1}) == (400, "body", "expires")
            assert await wrong("revokeToken", id="t-1") == (400, "path", "id")
            for _ in range(32):
                await api.ok("invokeCommand", endpoint="full", type="x", awaitTimeout=0)
            assert (await wrong("invokeCommand", endpoint="full", type="x", awaitTimeout=0))[0] == 429


async def test_the_token_is_required(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with NatsServer(jetstream=True) as nats:
        async with (
            running("epmx", nats_url=nats.url),
            serving(nats.url, "--token-file", str(file)) as (url, _),
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http,
        ):
            api = await Api.read(http)
            assert api.document["security"] == [{"token": []}]
            for path in ("/demo", "/health/live", "/health/ready"):
                assert (await http.get(path)).status_code == 200
            refused = await api.call("getMetadata", endpoint="ep")
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            path = "/api/v1/endpoints/ep/metadata"
            for other in ("//" + path[1:], path + "/", "/%61pi/v1/endpoints/ep/metadata"):
                assert (await http.get(f"{url}{other}")).status_code == 401, other
            http.headers["Authorization"] = f"Bearer {TOKEN}"
            assert await api.ok("getMetadata", endpoint="ep") == {}
            http.headers["Authorization"] = f"Bearer {TOKEN}x"
            assert (await api.call("getMetadata", endpoint="ep")).status_code == 401


async def test_without_a_token_only_this_machine_is_answered() -> None:
    with NatsServer(jetstream=True) as nats:
        async with (
            running("epmx", nats_url=nats.url),
            serving(nats.url) as (url, _),
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http,
        ):
            api = await Api.read(http)
            assert "security" not in api.document or not api.document["security"]
            assert (await api.call("getMetadata", endpoint="ep")).status_code == 200
            for field, value in (
                ("Host", "platform.example"),
                ("X-Forwarded-For", "192.0.2.1"),
                ("Origin", "http://platform.example"),
                ("Origin", "null"),
            ):
                http.headers[field] = value
                assert (await api.call("getMetadata", endpoint="ep")).status_code == 403, field
                del http.headers[field]
            http.headers["Origin"] = url
            assert (await api.call("getMetadata", endpoint="ep")).status_code == 200


async def test_bodies_have_bounds() -> None:
    with NatsServer(jetstream=True) as nats:
        async with running("ecr", "epmx", nats_url=nats.url), serving(nats.url) as (url, _):
            path = f"{url}/api/v1/endpoints/ep/app-versions/{VERSION}/configuration"
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
                json_ = {"Content-Type": "application/json"}
                large = await http.put(path, content=b"[%s]" % (b" " * 600_000), headers=json_)
                assert (large.status_code, large.json()["status"]) == (413, 413)

                async def chunks() -> AsyncIterator[bytes]:
                    for _ in range(700):
                        yield b" " * 1024

                assert (await http.put(path, content=chunks(), headers=json_)).status_code == 413
                assert (await http.put(path, content=b"1")).status_code == 415
                assert (await http.put(path, content=b"", headers=json_)).status_code == 400
                fits = b'["%s"]' % (b"x" * 500_000)
                assert (await http.put(path, content=fits, headers=json_)).status_code == 200
                deep = b"[" * 100_000 + b"]" * 100_000
                assert (await http.put(path, content=deep, headers=json_)).status_code == 400
                exact = b'{"big":123456789012345678901234567890,"one":1.10}'
                assert (await http.put(path, content=exact, headers=json_)).status_code == 200
                assert b'"config":' + exact in (await http.get(path)).content


async def test_services_or_nats_that_are_away() -> None:
    with NatsServer(jetstream=True) as nats:
        async with api_of(nats.url) as api:
            for name, parameters in (
                ("getMetadata", {}),
                ("querySamples", {}),
                ("invokeCommand", {"type": "x"}),
            ):
                away = await api.call(name, endpoint="ep", **parameters)
                assert away.status_code == 503, name
                assert "kaa-ext run" in away.json()["detail"]
                assert away.headers["Retry-After"]
            async with running("epmx", "cex", nats_url=nats.url):
                assert await api.ok("getMetadata", endpoint="ep") == {}
            # NATS may take the command for a replica whose end it has not noticed yet.
            async with asyncio.timeout(TIMEOUT_S):
                while (nobody := await api.call("invokeCommand", endpoint="ep", type="x")).status_code != 503:
                    await asyncio.sleep(0.1)
            assert "no replica of cex is running" in nobody.json()["detail"]
            nats.kill()
            assert (await api.call("getMetadata", endpoint="ep")).status_code == 503
            nats.start()

            async def back() -> bool:
                return (await api.call("getMetadata", endpoint="ep")).status_code == 200

            async with asyncio.timeout(TIMEOUT_S):
                while not await back():
                    await asyncio.sleep(0.1)


async def test_a_query_reads_a_bounded_number_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "BATCHES_MAX", 3)
    with NatsServer(jetstream=True) as nats:
        async with running("dcx", "epts", nats_url=nats.url):
            with GatewayProcess(nats.url, APPLICATION) as gateway:
                async with http_device(gateway.http_port, "ep") as device:
                    for value in range(5):
                        sample = {"a": value} if value == 0 else {"b": value}
                        assert (await device.ask("dcx", "/json", json.dumps(sample).encode())).status == 200
                server = RestServer([nats.url], Settings(), Instances())
                await server.start()
                try:
                    async with httpx.AsyncClient(
                        base_url=f"http://{HOST}:{server.port}", timeout=TIMEOUT_S
                    ) as http:
                        api = await Api.read(http)

                        async def stored() -> bool:
                            last = await api.call("getLastValue", endpoint="ep", metric="b")
                            return last.status_code == 200 and last.json()["value"] == 4

                        async with asyncio.timeout(TIMEOUT_S):
                            while not await stored():
                                await asyncio.sleep(0.05)
                        assert len((await api.ok("querySamples", endpoint="ep", limit=2))["samples"]) == 2
                        for name, parameters in (
                            ("querySamples", {"limit": 4}),
                            ("getLastValue", {"metric": "a"}),
                            ("downsampleTimeSeries", {"metric": "b", "period": 1000, "from_": 0}),
                        ):
                            refused = await api.call(name, endpoint="ep", **parameters)
                            assert refused.status_code == 400, name
                            (error,) = refused.json()["errors"]
                            assert (error["field"], "3 messages" in error["detail"]) == ("from", True)
                finally:
                    await server.stop()
