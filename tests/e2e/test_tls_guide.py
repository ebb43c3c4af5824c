"""docs/tls.md as an operator follows it: its certificates, its configuration, its commands; only ports are others."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.encrypted import run
from tests.support.gateway import ROOT
from tests.support.nats import free_port
from tests.support.processes import all_ended, children

START_TIMEOUT_S = 60.0

PORTS = {
    "SERVER_PORT": "8008",
    "KAA_KPC_TRANSPORTS_MQTT_TCP_PORT": "1883",
    "KAA_KPC_TRANSPORTS_MQTT_TLS_PORT": "8883",
    "KAA_KPC_TRANSPORTS_MQTT_WEBSOCKET_PORT": "8083",
    "KAA_KPC_TRANSPORTS_MQTT_WEBSOCKET_TLS_PORT": "8084",
    "KAA_KPC_TRANSPORTS_HTTP_PORT": "8080",
    "KAA_KPC_TRANSPORTS_HTTP_TLS_PORT": "8443",
    "KAA_KPC_TRANSPORTS_COAP_PORT": "5683",
    "KAA_KPC_TRANSPORTS_COAP_DTLS_PORT": "5684",
    "KAA_KPC_TRANSPORTS_UDP_PORT": "5686",
}
"""Variables, and the default ports of the keys that they name."""


def blocks(mark: str, language: str) -> list[str]:
    """The code blocks of the guide that follow this mark."""
    text = (ROOT / "docs" / "tls.md").read_text(encoding="utf-8")
    return re.findall(rf"<!-- {mark} -->\n```{language}\n(.*?)```", text, re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block, with their continuation lines."""
    return [command for command in re.split(r"(?<!\\)\n", block) if command]


async def start(directory: Path, ports: Mapping[str, str]) -> tuple[asyncio.subprocess.Process, list[str]]:
    """`kaa-gateway dev` with the configuration of the guide, and what it prints until it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-P",
            "-m",
            "kaa_gateway",
            "dev",
            "--config",
            "tls.yml",
            "--nats-port",
            str(free_port()),
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=directory,
        env={**os.environ, **ports},
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(START_TIMEOUT_S):
        while "ready" not in lines:
            line = await process.stdout.readline()
            assert line, lines
            lines.append(line.decode().strip())
    return process, lines


async def test_the_guide(tmp_path: Path) -> None:
    make, use = blocks("try", "sh")
    (configuration,) = blocks("example", "yaml")
    code, output = await run("sh", "-ec", f"cd {tmp_path}\n{make}")
    assert code == 0, output
    (tmp_path / "tls.yml").write_text(configuration)

    ports = {name: str(free_port()) for name in PORTS}
    process, lines = await start(tmp_path, ports)
    seen = children(process.pid)
    try:
        for title, scheme, variable, path in (
            ("MQTTS", "mqtts", "KAA_KPC_TRANSPORTS_MQTT_TLS_PORT", ""),
            ("WebSocket", "ws", "KAA_KPC_TRANSPORTS_MQTT_WEBSOCKET_PORT", "/ws"),
            ("WebSocket", "wss", "KAA_KPC_TRANSPORTS_MQTT_WEBSOCKET_TLS_PORT", "/ws"),
            ("HTTPS", "https", "KAA_KPC_TRANSPORTS_HTTP_TLS_PORT", ""),
            ("CoAPS", "coaps", "KAA_KPC_TRANSPORTS_COAP_DTLS_PORT", ""),
        ):
            assert f"{title:<12}{scheme}://localhost:{ports[variable]}{path}" in lines
        found = commands(use)
        assert len(found) == 4
        for command in found:
            here = command.replace("coaps://localhost/", "coaps://localhost:5684/")
            for variable, port in PORTS.items():
                here = re.sub(rf"\b{port}\b", ports[variable], here)
            # So that an error can be told from an answer without payload.
            here = here.replace("curl ", "curl --fail --silent --show-error ").replace(
                "-openssl", "-openssl -v 6"
            )
            code, output = await run("sh", "-ec", f"cd {tmp_path}\n{here}")
            assert code == 0, output
            if "coap-client" in here:
                assert "c:2.04" in output, output
            else:
                assert output == ""
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), START_TIMEOUT_S)
    assert process.returncode == 0
    assert all_ended(seen)
