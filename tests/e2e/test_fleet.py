"""Replicas as operators see and move them: kaa-gateway replicas, sessions, drain, rebalance, and SIGTERM at a rate."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.encrypted import run
from tests.support.esp import until
from tests.support.gateway import INSTANCE, GatewayProcess
from tests.support.mqtt import mqtt_client, mqtt_peer
from tests.support.mqtt5.packets import Disconnect, Puback, Publish
from tests.support.mqtt5.peer import mqtt5_client
from tests.support.mqtt5.properties import Property
from tests.support.nats import HOST, NatsServer, free_port

REFERENCE = "other.example.com:1883"


def replica(name: str, **kpc: Any) -> dict[str, Any]:
    return {
        "service": {"instance": {"replica": {"id": name}}, "graceful-shutdown": 20},
        "kaa": {"kpc": {"transports": {"mqtt": {"server-reference": REFERENCE}}, **kpc}},
    }


@pytest.fixture
def one(nats_server: NatsServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(nats_server.url, replica("one")) as process:
        yield process
        assert "Traceback" not in process.log, process.log


@pytest.fixture
def other(nats_server: NatsServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(nats_server.url, replica("other", workers=2)) as process:
        yield process
        assert "Traceback" not in process.log, process.log


@pytest.fixture
async def devices() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def command(gateway: GatewayProcess, *arguments: str) -> tuple[int | None, str]:
    """Run `kaa-gateway` with the gateway's own configuration and NATS."""
    return await run(
        "env", f"NATS_URLS={gateway._environment['NATS_URLS']}", f"PATH={os.environ['PATH']}",
        sys.executable, "-P", "-m", "kaa_gateway", *arguments, "--config", str(gateway.config_path),
    )  # fmt: skip


async def test_replicas_and_their_sessions(
    one: GatewayProcess, other: GatewayProcess, devices: AsyncExitStack
) -> None:
    for gateway, names in ((one, ("a", "b")), (other, ("c", "d", "e", "f"))):
        for name in names:
            await devices.enter_async_context(mqtt_client(gateway.mqtt_port, f"client-{name}"))
    status, shown = await command(one, "replicas", "--json")
    assert status == 0
    found = {each["replica"]: each for each in json.loads(shown)}
    assert sorted(found) == ["one", "other-0", "other-1"]
    assert found["one"]["clients"] == 2
    assert found["other-0"]["clients"] + found["other-1"]["clients"] == 4

    status, shown = await command(one, "sessions", "list", "--json")
    sessions = json.loads(shown)
    assert status == 0
    assert sorted(each["clientId"] for each in sessions) == [f"client-{name}" for name in "abcdef"]
    assert len(json.loads((await command(one, "sessions", "list", "--limit", "4", "--json"))[1])) == 4
    status, shown = await command(one, "sessions", "find", "--client", "client-d")
    assert status == 0
    (line,) = shown.splitlines()[1:]
    assert line.split()[2] == "client-d"
    assert line.split()[3].startswith("127.0.0.1:")
    assert await command(one, "sessions", "find", "--endpoint", "nobody", "--json") == (1, "[]\n")

    session = line.split()[0]
    assert await command(one, "sessions", "disconnect", session) == (0, "disconnected\n")
    assert (await command(one, "sessions", "disconnect", session))[0] == 1
    assert (await command(one, "sessions", "disconnect", "nothing"))[0] == 1
    assert (await command(one, "sessions", "find", "--client", "client-d"))[0] == 1


async def test_commands_without_a_file(nats_server: NatsServer, one: GatewayProcess) -> None:
    """NATS is named by an option, the instance by a variable or not at all."""
    program = ("env", "-i", f"PATH={os.environ['PATH']}")
    arguments = (sys.executable, "-P", "-m", "kaa_gateway", "replicas")
    status, shown = await run(*program, *arguments, "--nats", nats_server.url)
    assert status == 0
    assert "one" in shown
    status, shown = await run(*program, "SERVICE_INSTANCE_NAME=other", *arguments, "--nats", nats_server.url)
    assert status == 1
    assert "no replica of other answers\n" in shown
    status, shown = await run(*program, *arguments)
    assert status == 1
    assert "--config FILE" in shown
    assert "--nats URLS" in shown


async def test_watch_an_endpoint(
    nats_server: NatsServer, one: GatewayProcess, devices: AsyncExitStack
) -> None:
    device = await devices.enter_async_context(mqtt5_client(one.mqtt_port, "device"))
    watching = asyncio.create_task(command(one, "sessions", "watch", "seen", "--count", "2"))
    async with Cluster(nats_server.url, "dcx") as cluster:
        numbers = iter(range(1, 1000))

        async def speak() -> None:
            while not watching.done():
                for token in ("other", "seen"):
                    await device.send(Publish(f"kp1/app_v1/dcx/{token}/json/{next(numbers)}", b'{"t": 1}'))
                await cluster.request()
                await asyncio.sleep(0.2)

        speaking = asyncio.create_task(speak())
        status, shown = await watching
        speaking.cancel()
    head, *lines = shown.splitlines()
    assert (status, head, len(lines)) == (0, "watching seen", 2)
    for line in lines:
        assert " > dcx /json request " in line
        assert line.endswith(' {"t": 1}')


async def test_drain(one: GatewayProcess, devices: AsyncExitStack) -> None:
    new = [await devices.enter_async_context(mqtt5_client(one.mqtt_port, f"new-{n}")) for n in range(5)]
    old = [await devices.enter_async_context(mqtt_client(one.mqtt_port, f"old-{n}")) for n in range(5)]
    status, shown = await command(one, "drain", "one", "--rate", "20", "--permanent")
    assert (status, shown.splitlines()) == (0, ["one: 10 clients to send away", "one: drained"])
    for device in new:
        told = await device.expect(Disconnect)
        assert (told.reason_code, told.get(Property.SERVER_REFERENCE)) == (0x9D, REFERENCE)
        assert await device.receive() is None
    for peer in old:
        assert await peer.receive() is None
    with pytest.raises(ConnectionRefusedError):
        async with mqtt_peer(one.mqtt_port):
            pass
    assert not one.ready()
    assert one.running
    assert '"draining": true' in (await command(one, "replicas", "--json"))[1]


async def test_a_replica_that_stops_while_it_drains(one: GatewayProcess, devices: AsyncExitStack) -> None:
    """A rolling update ends a drain by SIGTERM."""
    for number in range(60):
        await devices.enter_async_context(mqtt5_client(one.mqtt_port, f"c{number}"))
    draining = asyncio.create_task(command(one, "drain", "one", "--rate", "1"))
    while '"draining": true' not in (await command(one, "replicas", "--json"))[1]:
        assert not draining.done()
    one.terminate()
    status, shown = await draining
    assert status == 0, shown
    assert shown.splitlines() == ["one: 60 clients to send away", "one: stopped"]


async def test_nothing_drains_if_a_replica_is_not_there(one: GatewayProcess) -> None:
    status, shown = await command(one, "drain", "one", "tow")
    assert status == 1
    assert "no replica 'tow' answers; `kaa-gateway replicas` shows those that do" in shown
    assert '"draining": false' in (await command(one, "replicas", "--json"))[1]


async def test_what_was_sent_is_acknowledged_before_the_end(
    nats_server: NatsServer, one: GatewayProcess, devices: AsyncExitStack
) -> None:
    device = await devices.enter_async_context(mqtt5_client(one.mqtt_port, "device"))
    async with Cluster(nats_server.url, "dcx"):
        await device.send(*(Publish("kp1/app_v1/dcx/t/json", b"1", 1, n + 1) for n in range(200)))
        assert (await command(one, "drain", "one", "--rate", "0"))[0] == 0
        received = []
        while (packet := await device.receive()) is not None:
            received.append(packet)
    assert isinstance(received[-1], Disconnect)
    assert received[-1].reason_code == 0x9C
    acknowledged = [packet.packet_id for packet in received[:-1] if isinstance(packet, Puback)]
    assert acknowledged == list(range(1, len(acknowledged) + 1))


async def test_rebalance(nats_server: NatsServer, one: GatewayProcess, devices: AsyncExitStack) -> None:
    with GatewayProcess(nats_server.url, replica("two")) as two:
        there = [await devices.enter_async_context(mqtt5_client(one.mqtt_port, f"a{n}")) for n in range(12)]
        for number in range(4):
            await devices.enter_async_context(mqtt5_client(two.mqtt_port, f"b{number}"))
        status, shown = await command(one, "rebalance", "--rate", "0")
        assert status == 0
        assert shown.splitlines() == ["one: 12 clients, 4 to send away", "two: 4 clients, 0 to send away"]
        await until(lambda: one.count("connections_closed", "mqtt") == 4, "clients to be gone")
        assert one.ready()
        assert two.count("connections_closed", "mqtt") == 0
        told = [device for device in there if device.at_eof()]
        assert len(told) == 4
        for device in told:
            assert (await device.until_disconnect()).reason_code == 0x9C


async def test_sigterm_at_a_rate(nats_server: NatsServer, devices: AsyncExitStack) -> None:
    with GatewayProcess(nats_server.url, replica("one", limits={"redirects-per-second": 20})) as gateway:
        clients = [
            await devices.enter_async_context(mqtt5_client(gateway.mqtt_port, f"c{n}")) for n in range(20)
        ]
        loop = asyncio.get_running_loop()
        gateway.terminate()

        async def ended(device: Any) -> float:
            told = await device.expect(Disconnect)
            assert (told.reason_code, told.get(Property.SERVER_REFERENCE)) == (0x9C, REFERENCE)
            return loop.time()

        times = sorted(await asyncio.gather(*map(ended, clients)))
        # Not all at once: they came in several turns.
        assert len({round(time, 2) for time in times}) > 5
        assert gateway.stop() == 0


def test_the_instance_is_in_the_subjects() -> None:
    from kaa_gateway.fleet import operations

    assert operations.to_all(INSTANCE, "GetStatus") == "kaa.v1.service.kpc.gateway.GetStatus"


def test_standard_output_has_nothing_but_what_was_asked_for() -> None:
    command = [sys.executable, "-P", "-m", "kaa_gateway", "sessions", "list", "--json"]
    nats = f"nats://{HOST}:{free_port()}"
    done = subprocess.run(
        [*command, "--nats", nats], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot connect to NATS" in done.stderr
