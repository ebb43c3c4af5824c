"""The demo platform of `kaa-gateway dev` on free ports, and commands of the documentation made fit for them."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.gateway import ROOT
from tests.support.nats import free_port
from tests.support.processes import all_ended, children

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
NATS_PORT = "4222"
REST_PORT = "8009"
VARIABLES = {
    "8008": "SERVER_PORT",
    "1883": "KAA_KPC_TRANSPORTS_MQTT_TCP_PORT",
    "8883": "KAA_KPC_TRANSPORTS_MQTT_TLS_PORT",
    "8083": "KAA_KPC_TRANSPORTS_MQTT_WEBSOCKET_PORT",
    "8084": "KAA_KPC_TRANSPORTS_MQTT_WEBSOCKET_TLS_PORT",
    "8080": "KAA_KPC_TRANSPORTS_HTTP_PORT",
    "8443": "KAA_KPC_TRANSPORTS_HTTP_TLS_PORT",
    "5683": "KAA_KPC_TRANSPORTS_COAP_PORT",
    "5684": "KAA_KPC_TRANSPORTS_COAP_DTLS_PORT",
    "5686": "KAA_KPC_TRANSPORTS_UDP_PORT",
}
"""Default ports, as the documentation names them, and the environment variables that change them."""


@dataclass
class Demo:
    """A demo platform that is ready."""

    ports: Mapping[str, str]
    """The port in use, by the default port."""
    lines: list[str]
    """What it has printed until `ready`."""
    directory: Path
    """Where its commands run."""

    @property
    def nats_url(self) -> str:
        """URL of its NATS server."""
        return f"nats://localhost:{self.ports[NATS_PORT]}"

    def here(self, text: str) -> str:
        """Return a command or program of the documentation with the ports and programs of this platform."""
        text = text.replace("coap://localhost/", "coap://localhost:5683/")
        text = text.replace("coaps://localhost/", "coaps://localhost:5684/")
        text = re.sub(r"\b(mosquitto_(?:pub|sub|rr))\b(?! -p)", r"\1 -p 1883", text)
        for port, used in self.ports.items():
            text = re.sub(rf"\b{port}\b", used, text)
        return text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")

    async def process(self, command: str) -> asyncio.subprocess.Process:
        """Start a command of the documentation; its output goes to a pipe."""
        return await asyncio.create_subprocess_exec(
            *("sh", "-ec", self.here(command)),
            cwd=self.directory,
            env={**os.environ, "NATS_URLS": self.nats_url},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, command: str) -> str:
        """Run a command of the documentation to its end, which must be a good one; return what it prints."""
        process = await self.process(command)
        output, _ = await asyncio.wait_for(process.communicate(), START_TIMEOUT_S)
        assert process.returncode == 0, f"{command}\n{output.decode()}"
        return output.decode()


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page that are in this language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """Return the commands of a block, each on one line."""
    return re.sub(r"\\\n\s*", "", block).splitlines()


@asynccontextmanager
async def demo(directory: Path, *arguments: str) -> AsyncIterator[Demo]:
    """Run `kaa-gateway dev` in a directory. It must end well, and leave no process behind."""
    ports = {port: str(free_port()) for port in (*VARIABLES, NATS_PORT, REST_PORT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "kaa_gateway", "dev", "--nats-port", ports[NATS_PORT], *arguments),
        *("--rest-port", ports[REST_PORT]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=directory,
        env={**os.environ, **{variable: ports[port] for port, variable in VARIABLES.items()}},
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while "ready" not in lines:
                line = await process.stdout.readline()
                assert line, lines
                lines.append(line.decode().strip())
        seen = children(process.pid)
        yield Demo(ports, lines, directory)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), STOP_TIMEOUT_S)
    assert process.returncode == 0
    assert all_ended(seen)
