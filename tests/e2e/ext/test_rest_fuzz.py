"""The REST API over real services, fuzzed by schemathesis with what its own document says."""

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.extensions import running
from tests.support.nats import NatsServer
from tests.support.rest import serving

SERVICES = ("auth", "cex", "cmx", "dcx", "ecr", "epmx", "epts")
EXAMPLES = 10
"""Requests that are made up for each operation and phase."""
TOKEN = "a-token-of-24-characters"
SETTINGS = """
[parameters]
"query.awaitTimeout" = 0
"""
"""Nobody answers the commands, so that waiting for a result says nothing."""


@pytest.mark.parametrize("guarded", [False, True], ids=["open to this machine", "with a token"])
async def test_the_api_does_what_its_document_says(tmp_path: Path, guarded: bool) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS)
    options = ("--token-file", str(file)) if guarded else ()
    with NatsServer(jetstream=True) as nats:
        async with running(*SERVICES, nats_url=nats.url), serving(nats.url, *options) as (url, rest):
            process = await asyncio.create_subprocess_exec(
                Path(sys.executable).parent / "schemathesis",
                *("--config-file", settings),
                *("run", f"{url}/openapi.json", "--url", url),
                *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(EXAMPLES)),
                "--generation-deterministic",
                *("--request-timeout", "30", "--no-color"),
                *(("--header", f"Authorization: Bearer {TOKEN}") if guarded else ()),
                cwd=tmp_path,
                env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
            assert process.returncode == 0, output.decode()
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"{url}/health/ready")).status_code == 200
            rest.terminate()
            _, errors = await rest.communicate()
            assert b"Traceback" not in errors, errors.decode()
