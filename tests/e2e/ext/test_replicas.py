"""Two gateway processes and two processes of each extension on one NATS.

Commands and configurations reach endpoints on either gateway, once; a replica that is killed takes nothing along that
was acknowledged.
"""

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from kaa_ext.messages import cdtp
from kaa_ext.operations.session import Session, session
from kaa_ext.services import cex, cmx, epmx, epts
from nats.aio.msg import Msg

from tests.support.devices import HttpDevice, MqttDevice, http_device, mqtt_device
from tests.support.esp import until
from tests.support.extensions import APPLICATION, kaa_ext, running
from tests.support.gateway import GatewayProcess, merged
from tests.support.nats import NatsServer

pytestmark = pytest.mark.timeout(300)
"""Each test starts six processes and runs several commands, which took 90 s under a load of 17 on two cores."""

SERVICES = ("dcx", "epts", "cmx", "ecr", "epmx", "cex")
MISSED = {"/command/reboot", "/config/json"}
REQUESTS_BEFORE_KILL = 20
REQUESTS_AFTER_KILL = 40
KEYS = 900
"""Metadata keys that are written in turn."""


@dataclass
class Platform:
    """Both gateways, both processes with all extensions, and a connection to NATS."""

    server: NatsServer
    gateways: list[GatewayProcess]
    replicas: list[Process]
    nats: Session
    devices: list[MqttDevice] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    async def kaa_ext(self, *arguments: str) -> str:
        code, output, errors = await kaa_ext(*arguments, nats_url=self.url)
        assert code == 0, errors
        return output


@asynccontextmanager
async def gateway_process(url: str, replica_id: str) -> AsyncIterator[GatewayProcess]:
    changes = merged(APPLICATION, {"service": {"instance": {"replica": {"id": replica_id}}}})
    process = GatewayProcess(url, changes)
    try:
        await asyncio.to_thread(process.start)
        yield process
        assert "Traceback" not in process.log, process.log
    finally:
        await asyncio.to_thread(process.close)


@pytest.fixture
async def kaa(tmp_path: Path) -> AsyncIterator[Platform]:
    settings = tmp_path / "services.yml"
    settings.write_text("dcx: {must-confirm: [epts], confirmation-timeout: 2}\ncmx: {provider-timeout: 2}\n")
    with NatsServer(jetstream=True) as server:
        async with AsyncExitStack() as stack:
            command = (*SERVICES, "--settings", str(settings), "--log-level", "warning")
            replicas = [
                await stack.enter_async_context(running(*command, nats_url=server.url)) for _ in range(2)
            ]
            gateways = [
                await stack.enter_async_context(gateway_process(server.url, name))
                for name in ("gw-a", "gw-b")
            ]
            nats = await stack.enter_async_context(session([server.url]))
            platform = Platform(server, gateways, replicas, nats)
            for number, gateway in enumerate(gateways):
                device = mqtt_device(gateway.mqtt_port, f"device-{number}")
                platform.devices.append(await stack.enter_async_context(device))
            yield platform


async def test_pushes_reach_an_endpoint_on_either_gateway_once(kaa: Platform) -> None:
    for device in kaa.devices:
        assert (await device.ask("cmx", "/config/json", b'{"observe": true}')).json()["configId"] == ""
    for device in kaa.devices:
        said = await kaa.kaa_ext("config", "set", device.token, '{"n": 1}', "--app-version", "app_v1")
        await until(lambda device=device: len(device.pushes) == 1, "the configuration")  # type: ignore[misc]
        path, payload = device.pushes[0]
        assert path == "/config/json"
        assert json.loads(payload)["configId"] in said
        executing = asyncio.create_task(execute(device))
        said = await kaa.kaa_ext("command", "send", device.token, "reboot", '{"in": 5}', "--wait")
        assert said.startswith("200 OK\n")
        assert json.loads(said.removeprefix("200 OK\n")) == {"in": 5}
        await executing
    # What is offered again is not delivered again: nothing comes before the answer to a later request.
    for device in kaa.devices:
        await kaa.kaa_ext("config", "set", device.token, '{"n": 1}', "--app-version", "app_v1")
        assert (await device.ask("cmx", "/config/json", b"{}")).status == 200
        assert len(device.pushes) == 2


async def execute(device: MqttDevice) -> None:
    """Do what comes as a command, and say that it went well."""
    await until(lambda: len(device.pushes) == 2, "the command")
    path, payload = device.pushes[1]
    (command,) = json.loads(payload)
    result = {"id": command["id"], "statusCode": 200, "reasonPhrase": "OK", "payload": command["payload"]}
    answer = await device.ask("cex", path.replace("/command/", "/result/"), json.dumps(result).encode())
    assert answer.status == 200


async def test_what_was_missed_is_pushed_once_to_who_connects(kaa: Platform) -> None:
    """To an endpoint that comes back through the other gateway, and at once asks for something else."""
    app_version = ("--app-version", "app_v1")
    await kaa.kaa_ext("config", "set", "sleeper", '{"n": 1}', *app_version)
    await kaa.kaa_ext("config", "set", "sleeper", "[2]", "--name", "network", *app_version)
    await kaa.kaa_ext("command", "send", "sleeper", "reboot")
    for gateway in kaa.gateways:
        async with mqtt_device(gateway.mqtt_port, "sleeper") as device:
            assert (await device.ask("dcx", "/json", b"[1]")).status == 200
            await until(lambda device=device: device.pushed_paths() >= MISSED, "the pushes")  # type: ignore[misc]
            assert (await device.ask("cmx", "/config/json/network", b"{}")).json()["config"] == [2]
            assert len(device.pushes) == len(device.pushed_paths())


@dataclass
class Load:
    """Devices that keep on sending, and what they were told is done."""

    stopping: bool = False
    acknowledged: dict[str, list[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))


async def keep_sending(
    load: Load, device: HttpDevice, what: str, request: Callable[[int], tuple[str, str, Any]]
) -> None:
    """Send one request after another; only what was answered with 200 counts."""
    done = load.acknowledged.setdefault(what, [])
    number = 0
    while not load.stopping:
        number += 1
        extension, path, body = request(number)
        try:
            answer = await device.ask(extension, path, json.dumps(body).encode())
        except httpx.HTTPError:
            continue
        if answer.status == 200:
            done.append(number)
        else:
            assert answer.status in (503, 504), answer


REQUESTS: dict[str, Callable[[int], tuple[str, str, Any]]] = {
    "data": lambda n: ("dcx", "/json", [n]),
    "metadata": lambda n: ("epmx", "/update/keys", {f"k{n % KEYS}": n}),
    "applied": lambda n: ("cmx", "/applied/json", {"configId": str(n)}),
    "observed": lambda n: ("cmx", f"/config/json/n{n % 8}", {"observe": True}),
}
"""The n-th request of each kind: extension, resource path and body."""


@asynccontextmanager
async def load_on(kaa: Platform) -> AsyncIterator[Load]:
    """A device for each kind of request, which sends until the end of the context."""
    load = Load()
    async with AsyncExitStack() as stack:
        sending = []
        for number, (what, request) in enumerate(REQUESTS.items()):
            port = kaa.gateways[number % 2].http_port
            device = await stack.enter_async_context(http_device(port, f"sender-{what}", timeout_s=3))
            sending.append(asyncio.create_task(keep_sending(load, device, what, request)))
        await progress(load, REQUESTS_BEFORE_KILL)
        yield load
        load.stopping = True
        await asyncio.gather(*sending)


async def progress(load: Load, requests: int) -> None:
    """Wait until so many more requests of each kind are acknowledged."""
    after = {what: len(done) for what, done in load.acknowledged.items()}
    await until(
        lambda: (
            len(load.acknowledged) == len(REQUESTS)
            and all(len(done) >= after.get(what, 0) + requests for what, done in load.acknowledged.items())
        ),
        "load",
        90,
    )


async def test_a_replica_that_is_killed_loses_nothing_that_was_acknowledged(kaa: Platform) -> None:
    applied: list[str] = []

    async def collect(message: Msg) -> None:
        applied.append(cdtp.CONFIG_APPLIED.decode(message.data)["configId"])

    await kaa.nats.client.subscribe(cdtp.applied_subject("cmx"), cb=collect)
    async with load_on(kaa) as load:
        kaa.replicas[0].send_signal(signal.SIGKILL)
        await kaa.replicas[0].wait()
        await progress(load, REQUESTS_AFTER_KILL)
    await check(kaa.nats, load.acknowledged)
    await until(
        lambda: set(map(str, load.acknowledged["applied"])) <= set(applied), "events of all that was applied"
    )


async def test_nats_that_is_killed_loses_nothing_that_was_acknowledged(kaa: Platform) -> None:
    """NATS dies twice, and a replica of the services with it; all that devices heard 200 for is there afterwards."""
    async with load_on(kaa) as load:
        for turn in range(2):
            await asyncio.to_thread(kaa.server.kill)
            if turn:
                kaa.replicas[0].send_signal(signal.SIGKILL)
                await kaa.replicas[0].wait()
            await asyncio.to_thread(kaa.server.start)
            await progress(load, REQUESTS_AFTER_KILL)
    async with session([kaa.url]) as nats:
        await check(nats, load.acknowledged)


async def check(nats: Session, acknowledged: dict[str, list[int]]) -> None:
    """All that was acknowledged is there."""
    metadata = await (await nats.state("epmx", epmx.STATE, epmx.Metadata)).get("sender-metadata") or {}
    newest = {f"k{number % KEYS}": number for number in acknowledged["metadata"]}
    for key, number in newest.items():
        assert int(bytes(metadata[key])) >= number
    states = await nats.state("cmx", cmx.STATE, cmx.EndpointState)
    assert (await states.get("app_v1", "sender-applied") or {})[""].applied is not None
    observed = await states.get("app_v1", "sender-observed") or {}
    assert {f"n{number % 8}" for number in acknowledged["observed"]} <= observed.keys()
    assert all(configured.observe for configured in observed.values())
    subscription = await nats.jetstream().subscribe(
        epts.stream_subject("epts", "app_v1", "sender-data"), ordered_consumer=True
    )
    samples: set[int] = set()
    waiting = 1
    while waiting:
        message = await subscription.next_msg(30)
        samples.update(json.loads(message.data)["samples"])
        waiting = message.metadata.num_pending
    assert set(acknowledged["data"]) <= samples


async def test_a_command_survives_the_replica_that_took_it(kaa: Platform) -> None:
    """Outstanding commands and results are every replica's."""
    device = kaa.devices[0]
    assert (await device.ask("cex", "/command/reboot", b"{}")).json() == []
    sent = [(await kaa.kaa_ext("command", "send", device.token, "reboot")).split()[1] for _ in range(3)]
    kaa.replicas[1].send_signal(signal.SIGKILL)
    await kaa.replicas[1].wait()
    answer = await device.ask_until_served("cex", "/command/reboot", b"{}")
    assert answer.status == 200
    assert sorted(str(command["id"]) for command in answer.json()) == sorted(sent)
    results = [{"id": int(number), "statusCode": 200} for number in sent]
    answer = await device.ask_until_served("cex", "/result/reboot", json.dumps(results).encode())
    assert answer.status == 200
    states = await kaa.nats.state("cex", cex.RESULTS, cex.Result)
    for number in sent:
        result = await states.get(device.token, "reboot", number)
        assert result is not None
        assert result.status_code == 200
