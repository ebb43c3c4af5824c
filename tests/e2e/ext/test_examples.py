"""What people are told to copy works as it stands: the example of docs/extensions.md, and what `kaa-ext new` writes."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.devices import HttpDevice, http_device
from tests.support.extensions import APPLICATION, kaa_ext, python
from tests.support.gateway import ROOT, GatewayProcess
from tests.support.nats import NatsServer

SERVE_TIMEOUT_S = 60.0


@pytest.fixture
async def device(new_token: Callable[[], str]) -> AsyncIterator[tuple[NatsServer, HttpDevice]]:
    """A device on a gateway that allows `thermostat`, and the NATS server behind."""
    with NatsServer(jetstream=True) as server, GatewayProcess(server.url, APPLICATION) as gateway:
        async with http_device(gateway.http_port, new_token()) as found:
            yield server, found


async def served(device: HttpDevice) -> None:
    """Return when somebody serves `thermostat`."""
    async with asyncio.timeout(SERVE_TIMEOUT_S):
        while (await device.ask("thermostat", "/target/get")).status == 503:
            await asyncio.sleep(0.1)


async def check_thermostat(device: HttpDevice) -> None:
    await served(device)
    answer = await device.ask("thermostat", "/target/get")
    assert (answer.status, answer.reason_phrase) == (404, "No target is set")
    assert (await device.ask("thermostat", "/target", b'{"degrees": 21.5}')).json() == {"degrees": 21.5}
    assert (await device.ask("thermostat", "/target/get")).json() == {"degrees": 21.5}
    answer = await device.ask("thermostat", "/target", b'{"degrees": "warm"}')
    assert (answer.status, answer.reason_phrase) == (400, "Expected float, got str - at degrees")
    answer = await device.ask("thermostat", "/target", b'{"degrees": 99}')
    assert (answer.status, answer.reason_phrase) == (400, "Expected 5 to 30 degrees")


async def test_the_example_of_the_documentation(
    device: tuple[NatsServer, HttpDevice], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "extensions.md").read_text()
    example = re.search(r"Put this into `thermostat\.py`:\n\n```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    (tmp_path / "thermostat.py").write_text(example[1])
    server, there = device
    async with python("thermostat.py", nats_url=server.url, cwd=tmp_path) as service:
        await check_thermostat(there)
        service.terminate()
        _, errors = await asyncio.wait_for(service.communicate(), SERVE_TIMEOUT_S)
        assert service.returncode == 0, errors.decode()
    # Its state is still there for the next replica.
    async with python("thermostat.py", nats_url=server.url, cwd=tmp_path):
        await served(there)
        assert (await there.ask("thermostat", "/target/get")).json() == {"degrees": 21.5}


async def test_a_new_project_tests_itself_and_answers(
    device: tuple[NatsServer, HttpDevice], tmp_path: Path
) -> None:
    server, there = device
    project = tmp_path / "project"
    code, output, errors = await kaa_ext(
        "new", "thermostat", "--directory", str(project), nats_url=server.url
    )
    assert code == 0, errors
    written = {Path(line) for line in output.splitlines()}
    assert written == set(project.iterdir())
    assert {path.name for path in written} == {"thermostat.py", "test_thermostat.py", "README.md"}
    async with python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", nats_url=server.url, cwd=project
    ) as pytest_run:
        output_bytes, _ = await asyncio.wait_for(pytest_run.communicate(), SERVE_TIMEOUT_S)
        assert pytest_run.returncode == 0, output_bytes.decode()
        assert b"2 passed" in output_bytes
    async with python("thermostat.py", nats_url=server.url, cwd=project):
        await check_thermostat(there)
    readme = (project / "README.md").read_text()
    assert json.loads(re.findall(r"curl -i -d '(.*)' http", readme)[0]) == {"degrees": 21.5}
    assert "{name}" not in readme
