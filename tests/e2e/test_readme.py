"""The README as a stranger follows it: every command that a machine can run, in its order; only ports are others."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.demo import Demo, blocks, commands, demo
from tests.support.gateway import ROOT

ANSWER_TIMEOUT_S = 30.0
ELSEWHERE = re.compile(r"^(?:make|python3 -m venv|/opt/\S+|apt-get|APP_CONFIG_PATH|\S*/locust)\b")
"""Commands that other tests run, or that need the reader's machine: the build, the wheel, a configuration."""
LOAD = re.compile(r"^\S*/kaa-sim\b")
"""Commands with the default ports, without an option for others: unit/test_docs parses them."""


class Reader:
    """Runs the commands of the README one by one, and knows which are left."""

    def __init__(self, platform: Demo) -> None:
        self.platform = platform
        self.left = [
            command
            for block in blocks("README.md", "sh")
            for command in commands(block)
            if not ELSEWHERE.search(command) and not LOAD.search(command)
        ]

    def next(self, beginning: str) -> str:
        """Return the next command of the README, which must begin like this."""
        command = self.left.pop(0)
        assert command.startswith(beginning), command
        return command

    async def run(self, beginning: str) -> str:
        return await self.platform.run(self.next(beginning))

    async def posted(self, beginning: str = "curl") -> str:
        """Run a curl of the README that must be answered with 200; return the body."""
        head, _, body = (await self.run(beginning)).partition("\r\n\r\n")
        assert re.search(r"HTTP/1.1 200", head), head
        return body


@contextmanager
def ended(process: asyncio.subprocess.Process) -> Iterator[None]:
    """End a process that waits for something."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()


async def line_of(process: asyncio.subprocess.Process, expected: str) -> str:
    """Return the first line of a process that has this in it."""
    assert process.stdout is not None
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        while True:
            line = (await process.stdout.readline()).decode()
            assert line, f"{expected} has not come"
            if expected in line:
                return line


async def send_samples(reader: Reader) -> None:
    assert reader.next("curl -i -d") == reader.left[0], "the first screen shows the same command"
    await reader.posted("curl -i -d")
    assert json.loads(await reader.posted("curl -i -X POST"))
    await reader.run("mosquitto_pub")
    assert "/tsx/my-device/time/42/status" in await reader.run("mosquitto_rr")
    await reader.run("coap-client")
    assert await reader.run("coap-client")


async def be_commanded(reader: Reader) -> None:
    """A device over MQTT gets its configuration and a command, and another terminal answers the command."""
    platform = reader.platform
    device = await platform.process(reader.next("mosquitto_sub"))
    with ended(device):
        # It has no word for "subscribed": the push comes as soon as it is.
        await reader.run(".venv/bin/kaa-ext config set")
        assert '"interval":10' in (await line_of(device, "/cmx/my-device/")).replace(" ", "")
        sender = await platform.process(reader.next(".venv/bin/kaa-ext command send"))
        with ended(sender):
            pushed = await line_of(device, "/cex/my-device/")
            (found,) = json.loads(pushed.partition(" ")[2])
            assert found["payload"] == {"times": 3}
            await reader.run("curl -X POST")
            result = reader.next("curl -i -d")
            assert '"id": 17' in result
            answered = await platform.run(result.replace('"id": 17', f'"id": {found["id"]}'))
            assert "200 OK" in answered
            output, _ = await asyncio.wait_for(sender.communicate(), ANSWER_TIMEOUT_S)
            assert sender.returncode == 0
            assert output.decode().splitlines()[-2:] == ["200", '"done"']


async def see_what_is_kept(reader: Reader) -> None:
    assert "21.5" in await reader.run(".venv/bin/kaa-ext data query")
    assert await reader.run(".venv/bin/kaa-ext config status")


async def write_an_extension(reader: Reader) -> None:
    (program,) = blocks("README.md", "python")
    (reader.platform.directory / "hello.py").write_text(reader.platform.here(program))
    service = await reader.platform.process("exec .venv/bin/python hello.py")
    with ended(service):
        command = reader.next("curl -i -X POST")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while "HTTP/1.1 503" in (output := await reader.platform.run(command)):
                await asyncio.sleep(0.1)
        assert output.endswith('{"hello": "my-device"}'), output


async def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    async with demo(tmp_path) as platform:
        reader = Reader(platform)
        await send_samples(reader)
        await be_commanded(reader)
        await see_what_is_kept(reader)
        await write_an_extension(reader)
        assert reader.left == []


def test_the_ports_of_the_readme_are_those_of_the_demo() -> None:
    """The table of protocols names the default ports that configuration.md has."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    reference = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (?:MQTT|HTTP|CoAP|KP).*$", text, re.MULTILINE)
    ports = {port for row in table for port in re.findall(r"\b\d{4}\b(?!,|\))", row)}
    assert {"1883", "8080", "5683", "5686", "8883", "8443", "5684"} <= ports
    for port in ports:
        assert f"| `{port}` |" in reference, port
