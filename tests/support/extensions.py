"""`kaa-ext` as a user runs it: services in a process of their own, and commands."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

LINE_TIMEOUT_S = 60
EXIT_TIMEOUT_S = 60
APPLICATION: dict[str, Any] = {
    "kaa": {
        "applications": {
            "app": {
                "versions": {
                    "app_v1": {
                        "allowed-extension-instances": [
                            "cex",
                            "cmx",
                            "dcx",
                            "echo",
                            "epmx",
                            "thermostat",
                            "tsx",
                        ]
                    }
                }
            }
        },
        "extension-instances": {
            name: {"endpoint-aware": True}
            for name in ("cex", "cmx", "dcx", "echo", "epmx", "thermostat", "tsx")
        },
    }
}
"""Changes to the test configuration of a gateway: an application version that may use the reference services."""


@asynccontextmanager
async def python(*arguments: str, nats_url: str, **options: Any) -> AsyncIterator[Process]:
    """Yield a Python process on this checkout, killed at the end if it still runs."""
    environment = {**os.environ, "NATS_URLS": nats_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=PIPE, stderr=PIPE, env=environment, **options
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def running(*services: str, nats_url: str) -> AsyncIterator[Process]:
    """Yield `kaa-ext run` when it is ready."""
    async with python("-P", "-m", "kaa_ext", "run", *services, nats_url=nats_url) as process:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), LINE_TIMEOUT_S)
        if line != b"ready\n":
            _, errors = await process.communicate()
            raise AssertionError(errors.decode())
        yield process


async def kaa_ext(*arguments: str, nats_url: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command. Return its exit code, output and errors."""
    async with python("-P", "-m", "kaa_ext", *arguments, nats_url=nats_url, stdin=PIPE) as process:
        output, errors = await asyncio.wait_for(process.communicate(stdin), EXIT_TIMEOUT_S)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()
