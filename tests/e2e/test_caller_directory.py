"""Our commands import nothing from the directory in which they are called, and neither do the processes they start."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.e2e.test_dev import Dev, Ports, dev
from tests.e2e.test_dev import ports as _ports
from tests.support.nats import HOST

ports = _ports
FOLDERS = (
    "bench",
    "ext",
    "gateway",
    "kaa_bench",
    "kaa_ext",
    "kaa_gateway",
    "multiprocessing",
    "tests",
)
"""Names that a stranger's directory may have; the last but one is what a spawned process imports first."""
RUN_TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose packages must not be imported."""
    directory = tmp_path / "foreign"
    for name in FOLDERS:
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text(
            f"raise RuntimeError('imported {name} of the caller')\n"
        )
    monkeypatch.chdir(directory)
    return directory


def script(name: str) -> str:
    """One of our commands, as a user calls it."""
    return str(Path(sys.executable).parent / name)


async def run(*words: str) -> str:
    """Run a command to its good end, and return its output."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), RUN_TIMEOUT_S)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize(
    "words",
    [
        ("kaa-gateway", "--help"),
        ("kaa-ext", "--help"),
        ("kaa-sim", "--help"),
        ("kaa-bench", "compare", "--help"),
    ],
    ids=lambda words: words[0],
)
async def test_commands_start(words: tuple[str, ...]) -> None:
    assert "Traceback" not in await run(script(words[0]), *words[1:])


async def test_dev_and_a_simulator_run(ports: Ports) -> None:
    async with dev(ports, program=(script("kaa-gateway"),)) as platform:
        await platform.ready()
        output = await run(
            *(script("kaa-sim"), "load", "mqtt", "--host", HOST, "--port", str(ports.mqtt)),
            *("--connections", "2", "--messages", "10", "--app-version", "app_v1"),
        )
        assert "Traceback" not in output
        await end(platform)


async def end(platform: Dev) -> None:
    platform.process.terminate()
    code, errors = await platform.end()
    assert code == 0, errors
    assert "Traceback" not in errors, errors


async def test_worker_processes_start(ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker of a gateway with several is a process of its own."""
    monkeypatch.setenv("APP_CONFIG_PATH", str(ports.file))
    monkeypatch.setenv("KAA_KPC_WORKERS", "2")
    monkeypatch.setenv("NATS_URLS", f"nats://{HOST}:{ports.nats}")
    gateway = await asyncio.create_subprocess_exec(
        *(script("kaa-gateway"), "run"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = b""
    assert gateway.stdout is not None
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            # Each worker says once that it cannot reach NATS, which is not there.
            while said.count(b"cannot connect to NATS") < 2:
                line = await gateway.stdout.readline()
                assert line, said.decode()
                said += line
        gateway.terminate()
        rest, _ = await asyncio.wait_for(gateway.communicate(), RUN_TIMEOUT_S)
    finally:
        if gateway.returncode is None:
            gateway.kill()
            await gateway.wait()
    assert b"Traceback" not in said + rest, (said + rest).decode()
