"""`kaa-ext config`, `command` and `data` against running services, with a gateway that the test kit plays."""

import asyncio
import io
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from kaa_ext import Extension
from kaa_ext.cli import main as cli
from kaa_ext.cli.exits import INTERRUPTED
from kaa_ext.services import cex, cmx, dcx, ecr, epmx, epts
from kaa_ext.testing import Gateway, online
from kaa_gateway.bus.push_receipts import PUSH_RECEIPT, receipt_subject

from tests.support.esp import until
from tests.support.extensions import python
from tests.support.nats import NatsServer

APP = ("--app-version", "app_v1")
TIMEOUT_S = 60.0
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:")
"""What the services of this process log."""


class Shell:
    """Runs commands in a thread of this process, on a NATS server where the services run."""

    def __init__(
        self,
        url: str,
        gateway: Gateway,
        cex: Extension,
        capture: pytest.CaptureFixture[str],
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.url = url
        self.cex = cex
        self.gateway = gateway
        self._capture = capture
        self._patch = patch

    async def run(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Exit code, output and errors."""
        self._patch.setattr("sys.argv", ["kaa-ext", *arguments, "--nats", self.url])
        self._patch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        self._capture.readouterr()

        def call() -> int:
            try:
                cli.main()
            except SystemExit as end:
                return int(end.code or 0)
            return 0

        code = await asyncio.wait_for(asyncio.to_thread(call), TIMEOUT_S)
        output = self._capture.readouterr()
        return (
            code,
            "\n".join(line for line in output.out.splitlines() if not LOG_LINE.match(line)),
            output.err,
        )

    def errors(self) -> str:
        """What was written to standard error since the last look; the end of a command then lacks it."""
        return self._capture.readouterr().err

    async def ok(self, *arguments: str, stdin: bytes = b"") -> str:
        """The output of a command that must go well."""
        code, output, errors = await self.run(*arguments, stdin=stdin)
        assert code == 0, (output, errors)
        return output


@pytest.fixture
async def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    extensions = {name: Extension(name) for name in ("dcx", "epts", "epmx", "cmx", "ecr", "cex")}
    for name, service in (("epts", epts), ("epmx", epmx), ("cmx", cmx), ("ecr", ecr), ("cex", cex)):
        service.register(extensions[name])
    dcx.register(extensions["dcx"], dcx.Settings(must_confirm=frozenset({"epts"}), confirmation_timeout=30))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(jetstream=True))
        gateway = await stack.enter_async_context(online(*extensions.values(), nats_url=server.url))
        yield Shell(server.url, gateway, extensions["cex"], capsys, monkeypatch)


async def test_config(shell: Shell, tmp_path: Path) -> None:
    assert (await shell.run("config", "get", "ep", *APP))[:2] == (1, "ep has no such configuration")
    assert await shell.ok("config", "status", "ep", *APP) == "(default)  none is set"
    config_id = (await shell.ok("config", "set", "ep", '{"a": 1.10}', *APP)).split()[1]
    assert json.loads(await shell.ok("config", "get", "ep", *APP)) == {"a": 1.1}
    file = tmp_path / "network.json"
    file.write_text("[1, 2]")
    await shell.ok("config", "set", "ep", f"@{file}", *APP, "--name", "network")
    await shell.ok("config", "set", "ep", "@-", *APP, "--name", "display", stdin=b'"bright"')
    assert await shell.ok("config", "get", "ep", *APP, "--name", "display") == '"bright"'
    pushes = await shell.gateway.next_pushes(3)
    assert {push.resource_path for push in pushes} == {
        "/config/json", "/config/json/network", "/config/json/display",
    }  # fmt: skip
    said = await shell.gateway.request("cmx", "/config/json", {"observe": True}, endpoint_id="ep")
    assert json.loads(said.payload or b"")["configId"] == config_id
    assert f"(default)  {config_id}  not applied yet  observed" in await shell.ok(
        "config", "status", "ep", *APP
    )
    await shell.gateway.request("cmx", "/applied/json", {"configId": config_id}, endpoint_id="ep")
    (network,) = (push for push in pushes if push.resource_path == "/config/json/network")
    body = {"configId": network.json()["configId"], "statusCode": 400, "reasonPhrase": "WPA2?"}
    await shell.gateway.request("cmx", "/applied/json/network", body, endpoint_id="ep")
    status = await shell.ok("config", "status", "ep", *APP)
    assert f"(default)  {config_id}  applied 20" in status
    assert ': 400 "WPA2?"' in status


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("config", "set", "ep", "{", *APP), 2, "Invalid JSON at byte 1"),
        (("config", "set", "ep", "{}", *APP, "--name", "a.b"), 2, "The name of a configuration has"),
        (("config", "get", "ep", *APP, "--provider", "other"), 1, "has `kaa-ext run other` been started?"),
        (("command", "send", "ep", "re.boot"), 1, ""),
        (("command", "send", "ep", "reboot", "{"), 2, "Invalid JSON at byte 1"),
        (("command", "send", "ep", "reboot", "--agent", "other"), 1, "has `kaa-ext run other` been started?"),
        (("data", "query", "--receiver", "other"), 1, "has `kaa-ext run other` been started?"),
        (("data", "tail", "--receiver", "other"), 1, "has `kaa-ext run other` been started?"),
    ],
)
async def test_what_goes_wrong_is_one_line(
    shell: Shell, arguments: tuple[str, ...], code: int, message: str
) -> None:
    found, _, errors = await shell.run(*arguments)
    assert found == code
    lines = [line for line in errors.splitlines() if line.startswith("kaa-ext: ")]
    assert message in "".join(lines)
    assert len(lines) == bool(message)
    assert "Traceback" not in errors


async def test_command(shell: Shell) -> None:
    gateway = shell.gateway
    number = int((await shell.ok("command", "send", "ep", "reboot", '{"in": 5}')).split()[1])
    (push,) = await gateway.next_pushes(1)
    assert push.json() == [{"id": number, "payload": {"in": 5}}]
    assert await shell.ok("command", "list", "ep") == f'reboot  {number}  {{"in":5}}'
    assert (await shell.run("command", "result", "ep", "reboot", str(number)))[:2] == (1, "no result")
    body = {"id": number, "statusCode": 500, "reasonPhrase": "Stuck", "payload": [1]}
    await gateway.request("cex", "/result/reboot", body, endpoint_id="ep")
    code, output, _ = await shell.run("command", "result", "ep", "reboot", str(number))
    assert (code, output) == (1, "500 Stuck\n[\n  1\n]")
    waiting = asyncio.create_task(shell.run("command", "send", "ep", "blink", "--wait"))
    (push,) = await gateway.next_pushes(1, after=1)
    ((command,), kind) = push.json(), push.resource_path
    assert kind == "/command/blink"
    body = {"id": command["id"], "statusCode": 200}
    await gateway.request("cex", "/result/blink", body, endpoint_id="ep")
    assert (await waiting)[:2] == (0, "200")
    code, output, _ = await shell.run("command", "send", "ep", "blink", "--wait", "--timeout", "0.5")
    assert (code, output) == (1, "408 The endpoint has sent no result in time")


async def test_metadata(shell: Shell) -> None:
    assert await shell.ok("metadata", "get", "ep") == "{}"
    await shell.ok("metadata", "set", "ep", '{"floor": 3, "name": "pump"}', *APP)
    answer = await shell.gateway.request("epmx", "/get", endpoint_id="ep")
    assert json.loads(answer.payload or b"") == {"floor": 3, "name": "pump"}
    await shell.ok("metadata", "delete", "ep", "name", "no_such_key", *APP)
    assert json.loads(await shell.ok("metadata", "get", "ep")) == {"floor": 3}
    for content, said in (("[1]", "Expected object"), ('{"a-b": 1}', "A metadata key has letters")):
        code, output, errors = await shell.run("metadata", "set", "ep", content, *APP)
        assert (code, output) == (2, "")
        assert said in errors
    assert (await shell.run("metadata", "delete", "ep", *APP))[2] == "kaa-ext: no key named\n"


async def test_data(shell: Shell) -> None:
    assert await shell.run("data", "query") == (1, "", "kaa-ext: epts has no sample\n")
    async with python("-P", "-m", "kaa_ext", "data", "tail", "ep.1", nats_url=shell.url) as tail:
        assert tail.stdout is not None
        following = asyncio.create_task(tail.stdout.readline())
        number = 0
        while not following.done():
            number += 1
            sample = {"temperature": 20 + number, "n": number}
            answer = await shell.gateway.request("dcx", "/json", sample, endpoint_id="ep.1")
            assert answer.status_code == 200
            await asyncio.wait({following}, timeout=0.2)
        line = following.result().decode().split(" ", 3)
        assert line[1:3] == ["app_v1", "ep.1"]
        assert json.loads(line[3])["temperature"] > 20
        tail.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(tail.communicate(), TIMEOUT_S)
        assert tail.returncode == INTERRUPTED, errors
        assert b"Traceback" not in errors
    await shell.gateway.request("dcx", "/plain/humidity", b"40.50", endpoint_id="other")
    output = await shell.ok("data", "query")
    assert len(output.splitlines()) == number + 1
    output = await shell.ok(
        "data", "query", "ep.1", "--last", "1", "--metric", "temperature", "--since", "1h"
    )
    assert output.split()[1:] == ["app_v1", "ep.1", str(20 + number)]
    assert (await shell.ok("data", "query", "*", "--metric", "humidity")).endswith(" app_v1 other 40.50")
    for arguments, said in (
        (("ep.1", "--metric", "humidity"), "no sample found has the field humidity"),
        (("nobody",), "epts has no sample of endpoint nobody"),
        (("nobody", "--since", "1h"), "epts has no sample of endpoint nobody"),
        (("ep.1", "--app-version", "v9"), "epts has no sample of endpoint ep.1 with application version v9"),
        (
            ("other", "--since", "0s"),
            "epts has no sample of endpoint other of the last 0s; there are older ones",
        ),
    ):
        assert await shell.run("data", "query", *arguments) == (1, "", f"kaa-ext: {said}\n")


async def test_a_command_says_whether_it_is_delivered(shell: Shell) -> None:
    """A receipt of the gateway, which the test kit does not send by itself."""
    gateway = shell.gateway

    async def report(push_id: str, outcome: str, reason: str | None = None) -> None:
        datum = PUSH_RECEIPT.encode(
            correlation_id=push_id,
            endpointId="ep",
            gatewayReplicaId="g",
            session="1",
            outcome=outcome,
            reason=reason,
        )
        await gateway.publish(receipt_subject(shell.cex.replica_id), datum)

    await shell.ok("command", "send", "ep", "reboot")
    (push,) = await gateway.next_pushes(1)
    await report(push.push_id, "dropped", "session_queue_full")
    while "not delivered because of session_queue_full" not in await shell.ok("command", "list", "ep"):
        await asyncio.sleep(0.1)
    waiting = asyncio.create_task(shell.run("command", "send", "ep", "blink", "--wait"))
    (push,) = await gateway.next_pushes(1, after=1)
    await report(push.push_id, "delivered")
    await until(lambda: "the command is delivered" in shell.errors(), "the command to say so")
    (command,) = push.json()
    body = {"id": command["id"], "statusCode": 200}
    await gateway.request("cex", "/result/blink", body, endpoint_id="ep")
    assert (await waiting)[:2] == (0, "200")
