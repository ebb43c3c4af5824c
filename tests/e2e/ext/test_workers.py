"""`kaa-ext run --workers`: processes that share the requests. One may die, and none outlives its supervisor."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from kaa_ext.messages import cip
from kaa_ext.operations.session import session
from kaa_ext.sdk.streams import stored
from kaa_ext.services import cex, epts
from kaa_ext.testing import Gateway, online
from nats.js.api import DeliverPolicy
from prometheus_client.parser import text_string_to_metric_families

from tests.support.esp import until
from tests.support.extensions import python
from tests.support.nats import HOST, NatsServer, free_port
from tests.support.processes import all_ended, children, kill

LINE_TIMEOUT_S = 90.0
WORKERS = 2
ENDPOINTS = 8
ROUNDS = 25
OWN = """\
from kaa_ext import Extension, Request

extension = Extension("mine")


@extension.handler("*")
def answer(request: Request) -> bytes:
    return b"mine"
"""


class Workers:
    """A `kaa-ext run` with several workers, and its management port."""

    def __init__(self, process: Process, port: int, directory: Path) -> None:
        self.process = process
        self.port = port
        self.directory = directory
        self.seen: dict[int, str] = {}

    def pids(self) -> list[int]:
        """Return the worker processes that are there now."""
        now = children(self.process.pid) if self.process.returncode is None else {}
        self.seen |= now
        return sorted(pid for pid, command in now.items() if "spawn_main" in command)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://{HOST}:{self.port}{path}")

    async def requests(self) -> dict[str, float]:
        """Return the number of answered requests by worker."""
        text = (await self.get("/metrics")).text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "kaa_ext_requests_total":
                    worker = sample.labels["worker"]
                    found[worker] = found.get(worker, 0) + sample.value
        return found

    async def end(self) -> tuple[int, str]:
        """Send SIGTERM. Return the exit code and the log."""
        self.pids()
        self.process.terminate()
        return await self.ended()

    async def ended(self) -> tuple[int, str]:
        """Wait for the end. Return the exit code and the log."""
        _, errors = await asyncio.wait_for(self.process.communicate(), LINE_TIMEOUT_S)
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


@asynccontextmanager
async def launched(directory: Path, nats_url: str, *arguments: str) -> AsyncIterator[Workers]:
    port = free_port()
    command = (
        "-m",
        "kaa_ext",
        "run",
        *arguments,
        "--workers",
        str(WORKERS),
        "--management",
        f"{HOST}:{port}",
    )
    temporary = directory / "tmp"
    temporary.mkdir()
    async with python(*command, nats_url=nats_url, cwd=directory) as process:
        workers = Workers(process, port, temporary)
        try:
            yield workers
        finally:
            workers.pids()
            if process.returncode is None:
                process.kill()
            kill(workers.seen)


async def until_ready(workers: Workers) -> None:
    assert workers.process.stdout is not None
    line = await asyncio.wait_for(workers.process.stdout.readline(), LINE_TIMEOUT_S)
    if line != b"ready\n":
        raise AssertionError((await workers.ended())[1])
    workers.pids()


@asynccontextmanager
async def running(directory: Path, nats_url: str, *arguments: str) -> AsyncIterator[Workers]:
    async with launched(directory, nats_url, *arguments) as workers:
        await until_ready(workers)
        yield workers


async def test_two_workers_share_the_requests_and_drain_at_sigterm(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        running(tmp_path, nats_server.url, "echo", "tsx") as workers,
        online(nats_url=nats_server.url) as gateway,
    ):
        assert len(workers.pids()) == WORKERS
        ready = await workers.get("/health/ready")
        assert (ready.status_code, sorted(ready.json()["workers"])) == (200, ["0", "1"])
        assert (await workers.get("/health/live")).json() == {"status": "UP"}
        for number in range(100):
            answer = await gateway.request("echo", "/any", b"%d" % number)
            assert (answer.status_code, answer.payload) == (200, b"%d" % number)
        counts = await workers.requests()
        assert sum(counts.values()) == 100
        assert min(counts.values()) > 0
        assert "kaa_ext_workers 2.0" in (await workers.get("/metrics")).text
        code, log = await workers.end()
        assert code == 0
        assert log.count("extension has stopped") == 2 * WORKERS
        assert "Traceback" not in log
        assert all_ended(workers.seen)


async def test_a_worker_that_dies_is_started_again(nats_server: NatsServer, tmp_path: Path) -> None:
    async with (
        running(tmp_path, nats_server.url, "echo") as workers,
        online(nats_url=nats_server.url) as gateway,
    ):
        assert (await workers.get("/health/ready")).status_code == 200
        victim, other = workers.pids()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len({*workers.pids()} - {victim, other}) == 1, "a worker in its place", 60)
        assert (await workers.get("/health/ready")).status_code == 200
        while len(await workers.requests()) < WORKERS:
            assert (await gateway.request("echo", "/any", b"1")).payload == b"1"
        assert other in workers.pids()
        text = (await workers.get("/metrics")).text
        assert 'kaa_ext_worker_starts_total{worker="0"}' in text
        code, log = await workers.end()
        assert code == 0
        assert log.count("worker died, starting it again") == 1


async def test_workers_do_not_outlive_their_supervisor(nats_server: NatsServer, tmp_path: Path) -> None:
    async with running(tmp_path, nats_server.url, "echo") as workers:
        workers.process.kill()
        await workers.process.wait()
        assert all_ended(workers.seen), workers.seen


async def ask(gateway: Gateway, extension: str, path: str, body: object, endpoint: str) -> object:
    answer = await gateway.request(extension, path, body, endpoint_id=endpoint)
    assert answer.status_code == 200, answer
    return json.loads(answer.payload or b"null")


async def test_services_with_state_are_right_on_several_workers(tmp_path: Path) -> None:
    """What one worker has stored, the other has for the next request; each sample is stored once."""
    settings = tmp_path / "services.yml"
    settings.write_text("dcx: {must-confirm: [epts]}\n")
    services = ("dcx", "epts", "epmx", "cmx", "ecr", "cex")
    with NatsServer(jetstream=True) as server:
        async with (
            running(tmp_path, server.url, *services, "--settings", str(settings)) as workers,
            online(nats_url=server.url) as gateway,
            session([server.url]) as connection,
        ):
            commands = [0] * ENDPOINTS

            async def device(number: int) -> None:
                endpoint = f"device-{number}"
                for turn in range(ROUNDS):
                    assert await ask(gateway, "dcx", "/json", [turn], endpoint) is None
                    await ask(gateway, "epmx", "/update/keys", {"turn": turn}, endpoint)
                    assert await ask(gateway, "epmx", "/get", b"", endpoint) == {"turn": turn}
                    request = cip.COMMAND_REQUEST.encode(
                        timeout=60_000, endpointId=endpoint, commandType="go", commandId=turn, payload=b"{}"
                    )
                    await gateway.publish(cip.request_subject("cex"), request)
                    while not (found := await ask(gateway, "cex", "/command/go", b"", endpoint)):
                        commands[number] += 1  # it is on its way
                    assert found == [{"id": turn, "payload": {}}]
                    await ask(gateway, "cex", "/result/go", {"id": turn, "statusCode": 200}, endpoint)
                    assert await ask(gateway, "cex", "/command/go", b"", endpoint) == []
                    await ask(gateway, "cmx", "/applied/json", {"configId": str(turn)}, endpoint)

            await asyncio.gather(*map(device, range(ENDPOINTS)))
            counts = await workers.requests()
            assert len(counts) == WORKERS
            assert min(counts.values()) > ROUNDS
            results = await connection.state("cex", cex.RESULTS, cex.Result)
            for number in range(ENDPOINTS):
                samples = [
                    sample
                    async for message in stored(
                        connection.jetstream(),
                        epts.stream_name("epts"),
                        epts.stream_subject("epts", "app_v1", f"device-{number}"),
                        DeliverPolicy.ALL,
                    )
                    for sample in json.loads(message.data)["samples"]
                ]
                assert samples == list(range(ROUNDS))
                for turn in range(ROUNDS):
                    assert await results.get(f"device-{number}", "go", str(turn)) is not None
            code, log = await workers.end()
            assert (code, "Traceback" in log) == (0, False), log


async def test_an_extension_of_the_users_own(nats_server: NatsServer, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(OWN)
    async with (
        running(tmp_path, nats_server.url, "service:extension", "echo") as workers,
        online(nats_url=nats_server.url) as gateway,
    ):
        assert (await gateway.request("mine", "/any")).payload == b"mine"
        assert (await workers.end())[0] == 0


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ('Extension("mine", replica_id="one")', 2, "mine has the replica ID 'one', which all workers would share"),
        ("None", 2, "service:extension is NoneType, not an Extension"),
        ('None if __import__("multiprocessing").parent_process() else Extension("mine")', 1, "worker cannot start"),
    ],
)  # fmt: skip
async def test_what_cannot_run_in_workers_ends_with_a_sentence(
    nats_server: NatsServer, tmp_path: Path, text: str, code: int, sentence: str
) -> None:
    (tmp_path / "service.py").write_text(f"from kaa_ext import Extension\n\nextension = {text}\n")
    async with launched(tmp_path, nats_server.url, "service:extension") as workers:
        found, log = await workers.ended()
        assert found == code, log
        assert sentence in log
        assert "Traceback" not in log


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_management_port_that_is_taken_ends_with_a_sentence(
    nats_server: NatsServer, workers: int
) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    arguments = ("echo", "--workers", str(workers), "--management", f"{HOST}:{port}")
    async with python("-m", "kaa_ext", "run", *arguments, nats_url=nats_server.url) as process:
        _, errors = await asyncio.wait_for(process.communicate(), LINE_TIMEOUT_S)
        assert process.returncode == 2
        assert errors.decode().strip() == f"kaa-ext: --management {HOST}:{port}: Address already in use"
    server.close()
