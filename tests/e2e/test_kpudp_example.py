"""The example device of docs/examples, built with the system's C compiler, against the server."""

import asyncio
import subprocess
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.kpudp import kpudp_gateway
from tests.support.nats import HOST, NatsServer

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "kpudp_device.c"
SAMPLES = 5
LINE_TIMEOUT_S = 20.0


async def test_the_example_device(shared_nats: NatsServer, tmp_path: Path) -> None:
    program = tmp_path / "kpudp_device"
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-std=c11", "-o", str(program), str(SOURCE)], check=True
    )
    async with Cluster(shared_nats.url, "dcx") as cluster, kpudp_gateway(shared_nats.url) as server:
        process = await asyncio.create_subprocess_exec(
            program, HOST, str(server.port), "kp1/app_v1/dcx/example/json", str(SAMPLES),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None

        async def line() -> str:
            assert process.stdout is not None
            return (await asyncio.wait_for(process.stdout.readline(), LINE_TIMEOUT_S)).decode().rstrip()

        try:
            for number in range(SAMPLES):
                assert await line() == f"sample {number}"
            requests = await cluster.next_requests(SAMPLES + 1)
            await cluster.answer(requests[-1], b"answer")
            assert await line() == "response 200 answer"
            assert await line() == "announced"
            await until(lambda: "example" in server.presence.present, "the proof of its address")
            await cluster.push("example", b"config", resourcePath="/config/json")
            assert await line() == "push kp1/app_v1/dcx/example/config/json config"
            await until(lambda: server.transport.unacknowledged() == 0, "the acknowledgement of the push")
        finally:
            process.kill()
            await process.wait()
    payloads = [request.fields["payload"] for request in requests]
    assert payloads == [f'{{"sample":{i}}}'.encode() for i in range(SAMPLES)] + [b"{}"]
