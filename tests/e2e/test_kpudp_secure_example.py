"""The encrypted example device of docs/examples, built with the system's C compiler: test vectors, and the server."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.kpudp_examples import VECTORS
from tests.support.nats import HOST, NatsServer
from tests.support.secure_kpudp import IDENTITY, KEY, secure_kpudp_gateway

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "kpudp_secure_device.c"
SAMPLES = 4
LINE_TIMEOUT_S = 60.0
COMPILE = ["cc", "-Wall", "-Wextra", "-Werror", "-std=c11", "-O2"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("example") / "kpudp_secure_device"
    subprocess.run([*COMPILE, "-o", str(program), str(SOURCE)], check=True)
    return program


def test_vectors(program: Path) -> None:
    contents = (
        "frames of the device: the first example of version 1", "the next frames of the device", "the bytes of a check",
    )  # fmt: skip
    output = subprocess.run(
        [program, "vectors", VECTORS["pre-shared key"].hex()],
        input="".join(f"{VECTORS[name].hex()}\n" for name in contents),
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    names = ("OPEN", "SEALED of the device, counter 1", "PATH PROOF, counter 2")
    assert output.split() == [VECTORS[name].hex() for name in names]


async def test_the_device_moves_and_resumes(shared_nats: NatsServer, program: Path) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        process = await asyncio.create_subprocess_exec(
            program, HOST, str(server.port), IDENTITY.decode(), KEY.hex(), "kp1/app_v1/dcx/example/json", str(SAMPLES),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), LINE_TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        lines = output.decode().split("\n")
        assert process.returncode == 0, lines
        assert [line for line in lines if line.startswith("sample")] == [
            f"sample {i}" for i in range(SAMPLES + 1)
        ]
        assert lines.count("session") == 1
        assert lines.count("checked") >= SAMPLES - 1
        requests = await cluster.next_requests(SAMPLES + 1)
    payloads = [request.fields["payload"] for request in requests]
    assert payloads == [f'{{"sample":{i}}}'.encode() for i in range(SAMPLES + 1)]
