"""cex: commands to endpoints, wherever and whenever these are, and their results to callers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kaa_ext import Extension, Response
from kaa_ext.messages import cip
from kaa_ext.services import cex
from kaa_ext.services.cex import expiry as cex_expiry
from kaa_ext.testing import Gateway, offline, until
from kaa_gateway.bus.messages import now_ms
from nats.aio.msg import Msg
from structlog.testing import capture_logs

CALLER = "kaa.v1.replica.caller.cip.command-result"


class Services:
    """Two replicas of cex in this process, and a caller. `results` is what it was told."""

    def __init__(self, gateway: Gateway, results: list[Msg], replicas: list[Extension]) -> None:
        self.gateway = gateway
        self.replicas = replicas
        self._results = results

    async def invoke(
        self,
        number: int,
        kind: str = "reboot",
        payload: bytes | None = None,
        *,
        correlation_id: str | None = None,
        timeout_ms: int = 0,
        **changes: Any,
    ) -> None:
        fields = {"endpointId": "ep", "commandType": kind, "commandId": number, "payload": payload, **changes}
        datum = cip.COMMAND_REQUEST.encode(
            correlation_id=correlation_id or f"c-{number}", timeout=timeout_ms / 1000, **fields
        )
        await self.gateway.publish(cip.request_subject("cex"), datum, CALLER)

    async def accepted(self, number: int, **fields: Any) -> None:
        """Send a command that is pushed, and return when it is."""
        count = len(self.gateway.pushes)
        await self.invoke(number, **fields)
        await self.gateway.next_pushes(1, after=count)

    async def ask(self, path: str, body: Any = b"") -> Response:
        return await self.gateway.request("cex", path, body, endpoint_id="ep")

    async def commands(self, kind: str = "reboot", body: Any = b"") -> Any:
        answer = await self.ask(f"/command/{kind}", body)
        assert answer.status_code == 200, answer
        return json.loads(answer.payload or b"")

    async def results(self, count: int) -> list[dict[str, Any]]:
        await until(lambda: len(self._results) >= count, f"{count} results")
        return [cip.COMMAND_RESULT.decode(message.data) for message in self._results]

    async def settle(self) -> None:
        for _ in range(2):
            for extension in self.replicas:
                tasks = extension._dispatcher.tasks
                await until(lambda tasks=tasks: not tasks, "quiet")  # type: ignore[misc]
            await asyncio.sleep(0.03)


@asynccontextmanager
async def services(**settings: Any) -> AsyncIterator[Services]:
    replicas = [Extension("cex") for _ in range(2)]
    for extension in replicas:
        cex.register(extension, cex.Settings(**settings))
    async with offline(*replicas) as gateway:
        yield Services(gateway, await gateway.listen(CALLER), replicas)


async def test_a_command_is_pushed_executed_and_its_result_told() -> None:
    async with services() as kaa:
        await kaa.invoke(5, payload=b'{ "delay": 1.0 }')
        (push,) = await kaa.gateway.next_pushes(1)
        assert (push.endpoint_id, push.resource_path) == ("ep", "/command/reboot")
        assert push.payload == b'[{"id":5,"payload":{"delay":1.0}}]'
        body = {"id": 5, "statusCode": 200, "reasonPhrase": "OK", "payload": {"up": True}}
        answer = await kaa.ask("/result/reboot", body)
        assert (answer.status_code, answer.payload) == (200, b"")
        (result,) = await kaa.results(1)
        assert result["correlationId"] == "c-5"
        assert (result["endpointId"], result["commandType"], result["commandId"]) == ("ep", "reboot", 5)
        assert (result["statusCode"], result["reasonPhrase"], result["payload"]) == (
            200,
            "OK",
            b'{"up":true}',
        )
        assert result["appVersionName"] == "app_v1"
        assert await kaa.commands() == []


async def test_outstanding_commands_by_type() -> None:
    async with services() as kaa:
        await kaa.accepted(1)
        await kaa.accepted(2, kind="blink", payload=b"null")
        await kaa.accepted(3)
        assert await kaa.commands() == [{"id": 1}, {"id": 3}]
        assert await kaa.commands("blink", {"observe": True}) == [{"id": 2, "payload": None}]
        assert await kaa.commands("other", {}) == []


async def test_several_results_at_once_and_each_again() -> None:
    async with services() as kaa:
        await kaa.accepted(1)
        await kaa.accepted(2)
        both = [{"id": 1, "statusCode": 200}, {"id": 2, "statusCode": 500, "reasonPhrase": "No"}]
        for _ in range(2):
            assert (await kaa.ask("/result/reboot", both)).status_code == 200
        results = await kaa.results(2)
        await kaa.settle()
        assert [(each["commandId"], each["statusCode"]) for each in results] == [(1, 200), (2, 500)]
        assert len(await kaa.results(2)) == 2


@pytest.mark.parametrize(
    ("path", "body", "status_code", "reason_phrase"),
    [
        ("/command/reboot", b"[]", 400, "Expected object, got array"),
        ("/command/reboot", b'{"observe": 1}', 400, "Expected bool, got int - at observe"),
        ("/command/reboot", b'{"x": 1}', 400, "Object contains unknown field x"),
        ("/command/re.boot", b"", 400, "The type of a command has 1 to 128 letters, digits, _ and -"),
        ("/result/reboot", b"", 400, "Empty payload"),
        ("/result/reboot", b"5", 400, "Expected object | array, got int"),
        ("/result/reboot", b"{}", 400, "Object missing required field id"),
        ("/result/reboot", b'{"id": 1}', 400, "Object missing required field statusCode"),
        (
            "/result/reboot",
            b'[{"id": 1, "statusCode": "OK"}]',
            400,
            "Expected int, got str - at $[0].statusCode",
        ),
        ("/result/reboot", b'{"id": 9999999999, "statusCode": 1}', 400, "Expected int <= 2147483647 - at id"),
        ("/result/reboot", b'{"id": 1, "statusCode": 200, "x": 1}', 400, "Object contains unknown field x"),
        ("/result/reboot", b'{"id": 7, "statusCode": 200}', 404, "Unknown command 7"),
        (
            "/result/re.boot",
            b'{"id": 7, "statusCode": 200}',
            400,
            "The type of a command has 1 to 128 letters, digits, _ and -",
        ),
    ],
)
async def test_bad_input(path: str, body: bytes, status_code: int, reason_phrase: str) -> None:
    async with services() as kaa:
        answer = await kaa.ask(path, body)
        assert (answer.status_code, answer.reason_phrase) == (status_code, reason_phrase)


async def test_an_endpoint_is_needed() -> None:
    async with services() as kaa:
        for path, body in (("/command/a", b""), ("/result/a", b"[]")):
            assert (await kaa.gateway.request("cex", path, body, endpoint_id=None)).status_code == 400


async def test_a_command_that_cannot_be_is_refused_to_the_caller() -> None:
    async with services() as kaa:
        await kaa.invoke(1, kind="a.b")
        await kaa.invoke(2, payload=b"{")
        await kaa.invoke(3, payload=b'"%s"' % (b"x" * cex.COMMANDS_BYTES_MAX))
        results = {each["commandId"]: each["statusCode"] for each in await kaa.results(3)}
        assert results == {1: 400, 2: 400, 3: 413}
        assert kaa.gateway.pushes == []


async def test_outstanding_commands_are_bounded() -> None:
    async with services() as kaa:
        for number in range(cex.COMMANDS_MAX):
            await kaa.accepted(number)
        await kaa.invoke(1000)
        assert (await kaa.results(1))[0]["statusCode"] == 429
        assert len(await kaa.commands()) == cex.COMMANDS_MAX


async def test_a_repeated_command_is_one_command_under_one_push_id() -> None:
    async with services() as kaa:
        await kaa.accepted(1)
        await kaa.accepted(1, correlation_id="again")
        assert len({push.push_id for push in kaa.gateway.pushes}) == 1
        assert await kaa.commands() == [{"id": 1}]
        await kaa.ask("/result/reboot", {"id": 1, "statusCode": 200})
        assert [each["correlationId"] for each in await kaa.results(1)] == ["again"]
        await kaa.invoke(1, correlation_id="late")
        assert [each["correlationId"] for each in await kaa.results(2)] == ["again", "late"]
        assert len(kaa.gateway.pushes) == 2


async def test_who_connects_is_pushed_what_is_outstanding_through_that_gateway() -> None:
    async with services() as kaa:
        await kaa.accepted(1)
        await kaa.accepted(2, kind="blink")
        await kaa.gateway.connect("ep", "stranger")
        again = await kaa.gateway.next_pushes(2, after=2)
        await kaa.settle()
        assert len(kaa.gateway.pushes) == 4
        assert {push.subject for push in again} == {"kaa.v1.replica.gateway.esp.ExtensionData"}
        assert {push.push_id for push in again} == {push.push_id for push in kaa.gateway.pushes[:2]}


async def test_what_was_asked_for_on_this_connection_is_not_pushed_on_it() -> None:
    async with services() as kaa:
        await kaa.accepted(1)
        assert len(await kaa.commands()) == 1
        await kaa.gateway.connect("ep")
        await kaa.settle()
        assert len(kaa.gateway.pushes) == 1


async def test_who_does_not_observe_is_pushed_nothing_of_that_type() -> None:
    async with services() as kaa:
        assert await kaa.commands("reboot", {"observe": False}) == []
        await kaa.invoke(1)
        await kaa.accepted(2, kind="blink")
        await kaa.gateway.connect("ep")
        await kaa.gateway.next_pushes(1, after=1)
        await kaa.settle()
        assert {push.resource_path for push in kaa.gateway.pushes} == {"/command/blink"}
        assert await kaa.commands() == [{"id": 1}]


async def test_commands_of_all_types_have_their_type() -> None:
    async with services() as kaa:
        await kaa.accepted(1, kind="reboot", payload=b'{"delay": 5}')
        await kaa.accepted(2, kind="blink")
        answer = await kaa.ask("/command")
        assert json.loads(answer.payload or b"") == [
            {"id": 1, "type": "reboot", "payload": {"delay": 5}},
            {"id": 2, "type": "blink"},
        ]
        # Of one type they have none, as the schema of 11/CEP wants it.
        assert await kaa.commands("blink") == [{"id": 2}]
        assert (await kaa.ask("/result/blink", {"id": 2, "statusCode": 200})).status_code == 200
        answer = await kaa.ask("/command", {"observe": True})
        assert [each["id"] for each in json.loads(answer.payload or b"")] == [1]
        # What was fetched on this connection is not pushed on it.
        before = len(kaa.gateway.pushes)
        await kaa.gateway.connect("ep")
        await kaa.settle()
        assert len(kaa.gateway.pushes) == before


async def test_who_observes_all_types_gets_pushes_there() -> None:
    async with services() as kaa:
        assert (await kaa.ask("/command", {"observe": True})).payload == b"[]"
        await kaa.accepted(1)
        # What is said of a type counts before all types.
        await kaa.ask("/command/blink", {"observe": True})
        await kaa.accepted(2, kind="blink")
        pushes = [(each.resource_path, each.json()) for each in kaa.gateway.pushes]
        assert pushes == [
            ("/command", [{"id": 1, "type": "reboot"}]),
            ("/command/blink", [{"id": 2}]),
        ]
        await kaa.ask("/command", {"observe": False})
        await kaa.invoke(3)
        await kaa.accepted(4, kind="blink")
        assert len(kaa.gateway.pushes) == 3
        await kaa.gateway.connect("ep")
        # The others were fetched on this connection, or are not observed.
        (push,) = await kaa.gateway.next_pushes(1, after=3)
        await kaa.settle()
        assert (push.resource_path, push.json()) == ("/command/blink", [{"id": 4}])
        assert len(kaa.gateway.pushes) == 4
        await kaa.ask("/command", {"observe": True})
        await kaa.accepted(5)
        assert kaa.gateway.pushes[-1].json() == [{"id": 5, "type": "reboot"}]


async def test_the_caller_is_told_when_the_time_is_over() -> None:
    async with services() as kaa:
        await kaa.invoke(2, timeout_ms=3_600_000)
        await kaa.invoke(1, timeout_ms=150)
        (expired,) = await kaa.results(1)
        assert (expired["commandId"], expired["statusCode"]) == (1, 408)
        await kaa.settle()
        assert await kaa.commands() == [{"id": 2}]
        answer = await kaa.ask("/result/reboot", {"id": 1, "statusCode": 200})
        assert (answer.status_code, answer.reason_phrase) == (410, "The time of command 1 is over")
        assert len(await kaa.results(1)) == 1


async def test_without_timeout_a_command_has_the_time_of_the_settings() -> None:
    async with services(retention=0.15) as kaa:
        await kaa.invoke(1)
        assert [each["statusCode"] for each in await kaa.results(1)] == [408]


async def test_a_replica_ends_the_commands_of_one_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cex_expiry, "SCAN_INTERVAL_S", 0.05)
    async with services() as kaa:
        command = cex.Command("reboot", 1, now_ms() + 50, "p", "c-1", CALLER)
        state = kaa.replicas[0]._states[cex.OUTSTANDING]
        await state.put("ep", value=cex.Outstanding([command]))
        assert [each["statusCode"] for each in await kaa.results(1)] == [408]
        await kaa.settle()
        assert await state.get("ep") is None


async def test_a_record_that_cannot_be_read_does_not_keep_others_from_their_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cex_expiry, "RETRY_S", 0.05)
    async with services() as kaa:
        bucket = kaa.replicas[0]._states[cex.OUTSTANDING]._bucket
        await bucket.put("broken", b"{")
        with capture_logs() as lines:
            monkeypatch.setattr(cex_expiry, "SCAN_INTERVAL_S", 0.05)
            await kaa.invoke(1, timeout_ms=150)
            assert [each["statusCode"] for each in await kaa.results(1)] == [408]
            for replica in kaa.replicas:
                assert replica.stats["failed"] == 0
        assert all("Traceback" not in str(line) for line in lines)


async def test_background_work_that_fails_is_counted_and_ends_nothing() -> None:
    extension = Extension("svc")
    extension.handler("/x")(lambda request: None)

    async def fail() -> None:
        raise KeyError("inside")

    async with offline(extension) as gateway:
        extension.spawn(fail())
        await until(lambda: extension.stats["failed"] == 1, "the count")
        assert (await gateway.request("svc", "/x")).status_code == 200


async def test_a_command_that_comes_too_late_is_over_at_once() -> None:
    async with services() as kaa:
        await kaa.invoke(1, timeout_ms=10, timestamp=now_ms() - 1000)
        assert [each["statusCode"] for each in await kaa.results(1)] == [408]
        await kaa.accepted(2)
        assert await kaa.commands() == [{"id": 2}]
        assert len(kaa.gateway.pushes) == 1


async def test_an_endpoint_that_waits_for_pushes_gets_its_outstanding_commands() -> None:
    """Its request has no request ID: an answer would not reach it, so nothing counts as fetched."""
    async with services() as cex:
        await cex.accepted(1, kind="reboot")
        await cex.accepted(2, kind="blink")
        before = len(cex.gateway.pushes)
        await cex.gateway.send("cex", "/command/blink", endpoint_id="ep", timeout=30_000)
        (push,) = await cex.gateway.next_pushes(1, after=before)
        assert (push.resource_path, push.json()) == ("/command/blink", [{"id": 2}])
        assert cex.gateway.replica_id in push.subject
        await cex.gateway.send("cex", "/command", endpoint_id="ep", timeout=30_000)
        pushes = await cex.gateway.next_pushes(2, after=before + 1)
        assert [push.json()[0]["type"] for push in pushes] == ["reboot", "blink"]
        await cex.gateway.connect("ep")  # they are not fetched: they are pushed again
        await cex.gateway.next_pushes(2, after=before + 3)
