"""epmx: what devices may do with their metadata, and what other services hear of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kaa_ext import Extension
from kaa_ext.messages import eme
from kaa_ext.services import epmx
from kaa_ext.testing import Gateway, offline
from nats.aio.msg import Msg

ACCESS: dict[str, epmx.Access] = {
    "serial": "read", "secret": "write", "hidden": "none", "name": "read-write",
}  # fmt: skip


@asynccontextmanager
async def services(**settings: Any) -> AsyncIterator[tuple[Gateway, list[Msg], Extension]]:
    replicas = [Extension("epmx") for _ in range(2)]
    for extension in replicas:
        epmx.register(extension, epmx.Settings(**settings))
    async with offline(*replicas) as gateway:
        yield gateway, await gateway.listen(eme.event_subject("epmx")), replicas[0]


async def ask(gateway: Gateway, path: str, body: Any = b"") -> Any:
    answer = await gateway.request("epmx", path, body)
    assert answer.status_code == 200, answer
    return json.loads(answer.payload) if answer.payload else None


async def test_full_and_partial_update_get_and_delete() -> None:
    async with services() as (gateway, _, _):
        assert await ask(gateway, "/get/keys", b"ignored") == []
        assert await ask(gateway, "/get") == {}
        assert await ask(gateway, "/update", {"a": 1, "b": {"c": [1]}}) is None
        assert await ask(gateway, "/update/keys", {"b": None, "d": "x"}) is None
        assert await ask(gateway, "/get", b"{}") == {"a": 1, "b": None, "d": "x"}
        assert await ask(gateway, "/get", {"keys": ["d", "absent"]}) == {"d": "x"}
        assert await ask(gateway, "/get", {"keys": []}) == {}
        assert sorted(await ask(gateway, "/get/keys")) == ["a", "b", "d"]
        assert await ask(gateway, "/delete/keys", ["a", "absent"]) is None
        assert await ask(gateway, "/update", {"e": 1.50}) is None
        assert await ask(gateway, "/get") == {"e": 1.5}
        assert (await gateway.request("epmx", "/get", endpoint_id="other")).payload == b"{}"


async def test_values_are_as_the_device_wrote_them() -> None:
    async with services() as (gateway, _, _):
        await ask(gateway, "/update", b'{ "a": 1.10, "b": { "z": 1, "y": 2 } }')
        assert (await gateway.request("epmx", "/get")).payload == b'{"a":1.10,"b":{"z":1,"y":2}}'


async def test_events_tell_what_has_changed() -> None:
    async with services() as (gateway, heard, _):
        await ask(gateway, "/update", {"a": 1, "b": None})
        await ask(gateway, "/update/keys", {"a": 1})
        await ask(gateway, "/update", {"a": "x", "c": [1, 2]})
        await ask(gateway, "/delete/keys", ["c", "absent"])
        events = [eme.METADATA_UPDATED.decode(message.data) for message in heard]
        assert [(event["added"], event["updated"], event["removed"]) for event in events] == [
            ({"a": "1", "b": None}, {}, {}),
            ({"c": "[1,2]"}, {"a": {"newValue": '"x"', "oldValue": "1"}}, {"b": None}),
            ({}, {}, {"c": "[1,2]"}),
        ]
        assert {(event["endpointId"], event["appVersionName"]) for event in events} == {
            ("endpoint", "app_v1")
        }


@pytest.mark.parametrize(
    ("path", "body", "status_code", "reason_phrase"),
    [
        ("/get", b"[]", 400, "Expected object, got array"),
        ("/get", b'{"keys": "a"}', 400, "Expected array, got str - at keys"),
        (
            "/get",
            b'{"keys": ["a-b"]}',
            400,
            "A metadata key has letters, digits and underscores, and at least one",
        ),
        ("/get", b'{"keys": ["a", "a"]}', 400, "Key a is there twice"),
        ("/get", b'{"x": 1}', 400, "Object contains unknown field x"),
        ("/get", b'{"keys": ["serial", "secret"]}', 403, "No read access to secret"),
        ("/get", b'{"keys": ["hidden"]}', 403, "No read access to hidden"),
        ("/update", b"", 400, "Empty payload"),
        ("/update", b"{}", 400, "Expected at least one key"),
        ("/update", b"[1]", 400, "Expected object, got array"),
        ("/update", b'{"": 1}', 400, "A metadata key has letters, digits and underscores, and at least one"),
        ("/update", b'{"a": 1', 400, "Invalid JSON at byte 7"),
        ("/update", b'{"name": 1, "serial": 2}', 403, "No write access to serial"),
        ("/update/keys", b"{}", 400, "Expected at least one key"),
        ("/update/keys", b'{"hidden": 1}', 403, "No write access to hidden"),
        ("/delete/keys", b"[]", 400, "Expected at least one key"),
        ("/delete/keys", b"{}", 400, "Expected array, got object"),
        ("/delete/keys", b'["a", "a"]', 400, "Key a is there twice"),
        (
            "/delete/keys",
            b'["a b"]',
            400,
            "A metadata key has letters, digits and underscores, and at least one",
        ),
        ("/delete/keys", b'["serial"]', 403, "No write access to serial"),
    ],
)
async def test_refused_requests(path: str, body: bytes, status_code: int, reason_phrase: str) -> None:
    async with services(access=ACCESS) as (gateway, heard, _):
        answer = await gateway.request("epmx", path, body)
        assert (answer.status_code, answer.reason_phrase) == (status_code, reason_phrase)
        assert heard == []


async def test_access() -> None:
    async with services(access=ACCESS, default_access="none") as (gateway, _, extension):
        stored = {key: json.dumps(key) for key in (*ACCESS, "other")}
        raw = b"{%s}" % b",".join(b'"%s":%s' % (key.encode(), text.encode()) for key, text in stored.items())
        await gateway.request("epmx", "/get")
        state = extension._states[epmx.STATE]
        await state.put("endpoint", value=state._decode(raw))
        assert sorted(await ask(gateway, "/get/keys")) == ["name", "secret", "serial"]
        assert sorted(await ask(gateway, "/get")) == ["name", "serial"]
        assert await ask(gateway, "/get", {"keys": ["serial"]}) == {"serial": "serial"}
        await ask(gateway, "/update", {"secret": 1})
        after = await state.get("endpoint")
        assert after is not None
        assert sorted(after) == ["hidden", "other", "secret", "serial"]


async def test_changes_at_the_same_time_are_all_there() -> None:
    async with services() as (gateway, heard, _):
        await asyncio.gather(*(ask(gateway, "/update/keys", {f"k{n}": n}) for n in range(10)))
        assert await ask(gateway, "/get") == {f"k{n}": n for n in range(10)}
        assert len(heard) == 10


async def test_metadata_is_bounded() -> None:
    async with services() as (gateway, _, _):
        await ask(gateway, "/update", {f"k{n}": n for n in range(epmx.KEYS_MAX)})
        assert (await gateway.request("epmx", "/update/keys", {"more": 1})).status_code == 413
        assert (await gateway.request("epmx", "/update", {"k": "x" * epmx.SIZE_MAX})).status_code == 413
        assert len(await ask(gateway, "/get/keys")) == epmx.KEYS_MAX


async def test_an_endpoint_is_needed() -> None:
    async with services() as (gateway, _, _):
        assert (await gateway.request("epmx", "/get", endpoint_id=None)).status_code == 400


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="access: expected metadata keys"):
        epmx.Settings(access={"a-b": "read"})
