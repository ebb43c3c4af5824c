"""epmx: what devices may do with their metadata, and what other services hear of it.

The metadata are those of epmx itself, or those of another repository (19/EPMMP).
"""

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


BOTH = pytest.mark.parametrize("remote", [False, True], ids=["own", "remote"])


@asynccontextmanager
async def services(
    remote: bool = False, **settings: Any
) -> AsyncIterator[tuple[Gateway, list[Msg], Extension]]:
    """Two replicas of epmx; with `remote` the metadata are those of epr, which has two replicas too."""
    keeper = "epr" if remote else "epmx"
    replicas = [Extension("epmx") for _ in range(2)]
    keepers = [Extension(keeper) for _ in range(2)] if remote else replicas
    if remote:
        settings["repository"] = keeper
        for extension in keepers:
            epmx.register(extension)
    for extension in replicas:
        epmx.register(extension, epmx.Settings(**settings))
    async with offline(*dict.fromkeys([*keepers, *replicas])) as gateway:
        await gateway.connect("endpoint")
        yield gateway, await gateway.listen(eme.event_subject(keeper)), keepers[0]


async def ask(gateway: Gateway, path: str, body: Any = b"") -> Any:
    answer = await gateway.request("epmx", path, body)
    assert answer.status_code == 200, answer
    return json.loads(answer.payload) if answer.payload else None


@BOTH
async def test_full_and_partial_update_get_and_delete(remote: bool) -> None:
    async with services(remote) as (gateway, _, _):
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


@BOTH
async def test_values_are_as_the_device_wrote_them(remote: bool) -> None:
    async with services(remote) as (gateway, _, _):
        await ask(gateway, "/update", b'{ "a": 1.10, "b": { "z": 1, "y": 2 } }')
        assert (await gateway.request("epmx", "/get")).payload == b'{"a":1.10,"b":{"z":1,"y":2}}'


@BOTH
async def test_events_tell_what_has_changed(remote: bool) -> None:
    async with services(remote) as (gateway, heard, _):
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
@BOTH
async def test_refused_requests(
    path: str, body: bytes, status_code: int, reason_phrase: str, remote: bool
) -> None:
    async with services(remote, access=ACCESS) as (gateway, heard, _):
        answer = await gateway.request("epmx", path, body)
        assert (answer.status_code, answer.reason_phrase) == (status_code, reason_phrase)
        assert heard == []


@BOTH
async def test_access(remote: bool) -> None:
    async with services(remote, access=ACCESS, default_access="none") as (gateway, _, extension):
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


@BOTH
async def test_changes_at_the_same_time_are_all_there(remote: bool) -> None:
    async with services(remote) as (gateway, heard, _):
        await asyncio.gather(*(ask(gateway, "/update/keys", {f"k{n}": n}) for n in range(10)))
        assert await ask(gateway, "/get") == {f"k{n}": n for n in range(10)}
        events = [eme.METADATA_UPDATED.decode(each.data) for each in heard]
        assert sorted(key for event in events for key in event["added"]) == [f"k{n}" for n in range(10)]
        # Changes that wait for each other reach another repository together.
        assert len(events) == 10 or (remote and len(events) < 10)


@BOTH
async def test_metadata_is_bounded(remote: bool) -> None:
    async with services(remote) as (gateway, _, _):
        await ask(gateway, "/update", {f"k{n}": n for n in range(epmx.KEYS_MAX)})
        assert (await gateway.request("epmx", "/update/keys", {"more": 1})).status_code == 413
        assert (await gateway.request("epmx", "/update", {"k": "x" * epmx.SIZE_MAX})).status_code == 413
        assert len(await ask(gateway, "/get/keys")) == epmx.KEYS_MAX


async def test_an_endpoint_is_needed() -> None:
    async with services() as (gateway, _, _):
        assert (await gateway.request("epmx", "/get", endpoint_id=None)).status_code == 400


async def test_a_repository_that_fails_or_is_not_there() -> None:
    extension = Extension("epmx")
    epmx.register(extension, epmx.Settings(repository="epr", repository_timeout=0.05))
    async with offline(extension) as gateway:
        for path, body in (("/get", b""), ("/get/keys", b""), ("/update", b'{"a": 1}')):
            assert (await gateway.request("epmx", path, body)).status_code == 503
        requests = await gateway.listen("kaa.v1.service.epr.epmmp.>")
        for path, body in (("/get", b""), ("/get/keys", b""), ("/update", b'{"a": 1}')):
            assert (await gateway.request("epmx", path, body)).status_code == 504
        assert [message.subject.rpartition(".")[2] for message in requests] == [
            "ep-metadata-get-request", "ep-metadata-keys-get-request", "ep-metadata-get-request",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"repository": "a.b"}, "repository: expected the name of a service instance"),
        ({"repository_timeout": 0}, "repository-timeout: expected a number of seconds above 0"),
    ],
)
def test_wrong_settings_of_the_repository(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        epmx.Settings(**settings)


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="access: expected metadata keys"):
        epmx.Settings(access={"a-b": "read"})
