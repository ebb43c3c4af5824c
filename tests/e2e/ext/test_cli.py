"""kaa-ext as a process: ready, serving, Ctrl-C."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
from kaa_ext.operations.session import session
from kaa_ext.sdk.streams import stored
from kaa_ext.services import epts
from nats.js import api

from tests.support.esp import GatewayDouble
from tests.support.extensions import APPLICATION
from tests.support.gateway import GatewayProcess, merged
from tests.support.nats import HOST, NatsServer

LINE_TIMEOUT_S = 30
EXIT_TIMEOUT_S = 30


@asynccontextmanager
async def kaa_ext(*arguments: str, environment: dict[str, str] | None = None) -> AsyncIterator[Process]:
    command = [sys.executable, "-P", "-m", "kaa_ext", "run", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=PIPE, env={**os.environ, **(environment or {})}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await asyncio.wait_for(stream.readline(), LINE_TIMEOUT_S)).decode()


async def ended(process: Process) -> str:
    """What the process wrote on stderr until its end, which must be a clean one."""
    _, errors = await asyncio.wait_for(process.communicate(), EXIT_TIMEOUT_S)
    assert process.returncode == 0, errors.decode()
    return errors.decode()


async def test_serves_several_services_until_ctrl_c(nats_server: NatsServer) -> None:
    async with kaa_ext("dcx", "tsx", "dcx2=dcx", "--nats", nats_server.url) as process:
        assert await line(process.stdout) == "ready\n"
        async with GatewayDouble(nats_server.url) as gateway:
            for extension in ("dcx", "dcx2"):
                answer = await gateway.ask(extension, "/json", b"[1]")
                assert (answer.status_code, answer.extension_instance_name) == (200, extension)
            assert (await gateway.ask("tsx", "")).status_code == 200
        process.send_signal(signal.SIGINT)
        errors = await ended(process)
        assert errors.count("extension has stopped") == 3
        assert "Traceback" not in errors


async def test_waits_for_nats_from_the_environment_without_telling_its_password(
    nats_server: NatsServer,
) -> None:
    nats_server.stop()
    url = nats_server.url.replace("//", "//user:s3cret@")
    async with kaa_ext("echo", environment={"NATS_URLS": url}) as process:
        said = await line(process.stderr)
        assert "cannot connect to NATS, trying on" in said
        assert f"127.0.0.1:{nats_server.port}" in said
        assert "s3cret" not in said
        nats_server.start()
        assert await line(process.stdout) == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert "s3cret" not in await ended(process)


async def test_ctrl_c_while_nats_is_away(nats_server: NatsServer) -> None:
    nats_server.stop()
    async with kaa_ext("echo", "tsx", "--nats", nats_server.url) as process:
        assert "cannot connect to NATS" in await line(process.stderr)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in await ended(process)


async def test_a_durable_service_takes_what_was_acknowledged_while_it_was_away() -> None:
    changes = merged(APPLICATION, {"kaa": {"extension-instances": {"dcx": {"durable": True}}}})
    with NatsServer(jetstream=True) as server, GatewayProcess(server.url, changes) as gateway:
        async with aiomqtt.Client(HOST, gateway.mqtt_port) as client:
            # Without request ID: the acknowledgement is all that the device waits for.
            await client.publish("kp1/app_v1/dcx/ep/json", b'{"n": 1}', qos=1)
        async with kaa_ext("epts", "dcx", "--durable", "dcx", "--nats", server.url) as process:
            assert await line(process.stdout) == "ready\n"
            async with session([server.url]) as connection:
                subject = epts.stream_subject("epts", "app_v1", "ep")
                async with asyncio.timeout(LINE_TIMEOUT_S):
                    while not [
                        message
                        async for message in stored(
                            connection.jetstream(), "epts-samples", subject, api.DeliverPolicy.ALL
                        )
                    ]:
                        await asyncio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert "Traceback" not in await ended(process)
