"""`kaa-gateway dev` as a stranger uses it: what it prints works as printed, and Ctrl-C leaves nothing behind."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.esp import until
from tests.support.nats import HOST, free_port
from tests.support.processes import all_ended, children, kill

START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 30.0


@dataclass
class Ports:
    """Free ones, in a configuration file."""

    nats: int
    mqtt: int
    http: int
    coap: int
    udp: int
    admin: int
    rest: int
    file: Path


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    nats, mqtt, http, coap, udp, admin, rest = (free_port() for _ in range(7))
    found = Ports(nats, mqtt, http, coap, udp, admin, rest, tmp_path / "service-config.yml")
    names = ["cex", "cmx", "dcx", "tsx"]
    extensions: dict[str, Any] = {name: {"endpoint-aware": True} for name in names}
    document = {
        "server": {"port": found.admin},
        "kaa": {
            "applications": {"app": {"versions": {"app_v1": {"allowed-extension-instances": names}}}},
            "extension-instances": extensions,
            "kpc": {
                "transports": {
                    "mqtt": {"tcp": {"port": found.mqtt}},
                    "http": {"port": found.http},
                    "coap": {"port": found.coap},
                    "udp": {"enabled": True, "port": found.udp},
                }
            },
        },
    }
    found.file.write_text(json.dumps(document))
    return found


class Dev:
    """The running command, what it has printed, and every process that it was seen to have."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.seen: dict[int, str] = {}

    async def line(self) -> str:
        """The next line of standard output; "" at its end."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), START_TIMEOUT_S)
        self.look()
        self.lines.append(line.decode().rstrip("\n"))
        return line.decode().strip()

    async def ready(self) -> None:
        while (line := await self.line()) != "ready":
            assert self.process.returncode is None
            assert line or self.lines[-1] == "", self.lines

    def look(self) -> None:
        """Take note of the processes that there are."""
        self.seen |= children(self.process.pid)

    def printed(self, command: str) -> list[str]:
        """The words of the one printed line with this command."""
        (line,) = [line for line in self.lines if line.startswith("  ") and f"{command} " in line]
        return shlex.split(line)

    async def end(self) -> tuple[int, str]:
        """Its exit code and what it said on standard error, when it has ended with all its processes."""
        _, errors = await asyncio.wait_for(self.process.communicate(), STOP_TIMEOUT_S)
        assert self.process.returncode is not None
        assert all_ended(self.seen), self.seen
        return self.process.returncode, errors.decode()


@asynccontextmanager
async def dev(
    ports: Ports, *arguments: str, program: tuple[str, ...] = (sys.executable, "-P", "-m", "kaa_gateway")
) -> AsyncIterator[Dev]:
    process = await asyncio.create_subprocess_exec(
        *(*program, "dev", "--config", str(ports.file)),
        *("--nats-port", str(ports.nats), "--rest-port", str(ports.rest), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ},
        start_new_session=True,
    )
    command = Dev(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            command.look()
            process.kill()
            await process.wait()
        kill(command.seen)


def temporary_directories(seen: dict[int, str]) -> list[Path]:
    """Where the nats-servers among these processes keep their data."""
    return [
        Path(words[words.index("--store_dir") + 1]).parent
        for words in map(shlex.split, seen.values())
        if "--store_dir" in words
    ]


async def output_of(words: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), START_TIMEOUT_S)
    assert process.returncode == 0, output
    return output.decode()


async def test_what_it_prints_works_as_printed_and_ctrl_c_stops_it(ports: Ports) -> None:
    async with dev(ports) as command, httpx.AsyncClient() as http:
        await command.ready()
        addresses = dict(line.split(maxsplit=1) for line in command.lines[:6])
        assert addresses == {
            "NATS": f"nats://127.0.0.1:{ports.nats}",
            "MQTT": f"mqtt://localhost:{ports.mqtt}",
            "HTTP": f"http://localhost:{ports.http}",
            "CoAP": f"coap://localhost:{ports.coap}",
            "KP/UDP": f"udp://localhost:{ports.udp}",
            "Management": f"http://localhost:{ports.admin}/health/ready",
        }
        assert (await http.get(addresses["Management"])).json() == {"status": "UP"}
        page = command.lines[6].removeprefix("Live page").strip()
        assert "<title>" in (await http.get(page)).text
        api, demo = (line.split()[-1] for line in command.lines[7:9])
        assert (await http.get(api)).json()["openapi"] == "3.1.0"
        assert demo == f"http://localhost:{ports.rest}/demo#my-device/app_v1"
        assert "<title>" in (await http.get(demo)).text
        samples = f"http://localhost:{ports.rest}/api/v1/endpoints/my-device/samples"
        assert (await http.get(samples)).json() == {"samples": [], "next": None}

        curl = command.printed("curl")
        mosquitto_pub = command.printed("mosquitto_pub")
        # Without curl or mosquitto_pub on this machine, an HTTP client of Python has to do.
        if shutil.which("curl"):
            assert "HTTP/1.1 200 OK" in await output_of(curl)
        url, payload = curl[-1], curl[curl.index("-d") + 1]
        assert (await http.post(url, content=payload)).status_code == 200
        if shutil.which("mosquitto_pub"):
            assert await output_of(mosquitto_pub) == ""
        assert mosquitto_pub[mosquitto_pub.index("-t") + 1] in f"{url}/1"
        await check_what_the_extensions_do(command, http, url.replace("/dcx/my-device/json", ""))
        metrics = (await http.get(f"http://localhost:{ports.admin}/metrics")).text
        assert 'kaa_gateway_events_total{event="refused"' not in metrics, "an extension was not there"

        command.look()
        names = " ".join(command.seen.values())
        assert "nats-server" in names
        assert "-m kaa_ext run dcx epts cmx ecr epmx cex tsx echo" in names
        (data,) = temporary_directories(command.seen)
        assert data.exists()
        command.process.send_signal(signal.SIGINT)
        code, errors = await command.end()
        assert code == 0
        assert "Traceback" not in errors
        assert not data.exists()
    for port in (ports.nats, ports.mqtt, ports.http, ports.admin):
        socket.create_server((HOST, port)).close()


async def check_what_the_extensions_do(command: Dev, http: httpx.AsyncClient, base: str) -> None:
    """A configuration that is set reaches the device; so does a command, whose result comes back to the shell."""
    assert "configuration" in await output_of(command.printed("config set"))
    configuration = (await http.post(f"{base}/cmx/my-device/config/json")).json()
    assert configuration["config"] == {"interval": 10}
    sending = asyncio.create_task(output_of(command.printed("command send")))
    commands: list[dict[str, Any]] = []

    async with asyncio.timeout(START_TIMEOUT_S):
        while not commands:
            commands = (await http.post(f"{base}/cex/my-device/command/reboot")).json()
            await asyncio.sleep(0.05)
    result = {"id": commands[0]["id"], "statusCode": 200, "payload": "rebooted"}
    assert (await http.post(f"{base}/cex/my-device/result/reboot", json=result)).status_code == 200
    assert await sending == 'the command is fetched by the endpoint\n200\n"rebooted"\n'


async def test_an_extension_of_ones_own_is_allowed(ports: Ports) -> None:
    """By an option, and by an edit of the file, which is applied without a restart."""
    async with dev(ports, "--allow", "mine", "--allow", "other") as command, httpx.AsyncClient() as http:
        await command.ready()
        base = f"http://localhost:{ports.http}/kp1"
        # 503: the extension is allowed, and does not run.
        assert (await http.post(f"{base}/app_v1/mine/my-device/x")).status_code == 503
        assert (await http.post(f"{base}/app_v1/other/my-device/x")).status_code == 503
        assert (await http.post(f"{base}/app_v1/third/my-device/x")).status_code == 404
        document = json.loads(ports.file.read_text())
        versions = document["kaa"]["applications"]["app"]["versions"]
        versions["app_v1"]["allowed-extension-instances"].append("third")
        ports.file.write_text(json.dumps(document))
        async with asyncio.timeout(START_TIMEOUT_S):
            while (await http.post(f"{base}/app_v1/third/my-device/x")).status_code == 404:
                await asyncio.sleep(0.1)
        assert (await http.post(f"{base}/app_v1/third/my-device/x")).status_code == 503
        assert (await http.post(f"{base}/app_v1/mine/my-device/x")).status_code == 503
        command.process.send_signal(signal.SIGINT)
        assert (await command.end())[0] == 0


async def test_one_line_for_an_extension_that_cannot_be(ports: Ports) -> None:
    async with dev(ports, "--allow", "a.b") as command:
        code, errors = await command.end()
    assert code == 1
    assert errors.splitlines() == [
        "kaa-gateway: --allow a.b: expected 1 to 128 letters, digits, dashes and underscores"
    ]


async def test_with_authentication_what_it_prints_works_too(ports: Ports) -> None:
    """The way of a token and of a client: nobody gets in, they are made, used, listed, and taken back."""
    async with dev(ports, "--auth") as command:
        await command.ready()
        curl, mosquitto_pub = command.printed("curl"), command.printed("mosquitto_pub")
        assert "HTTP/1.1 401" in await output_of(curl), "there is no client yet"
        client = (await output_of(command.printed("auth add-client"))).split()[-1]
        assert "HTTP/1.1 401" in await output_of(curl), "there is no token yet"
        token = (await output_of(command.printed("auth add"))).split()[-1]

        async def succeeds() -> bool:
            return "HTTP/1.1 200" in await output_of(curl)

        async with asyncio.timeout(START_TIMEOUT_S):
            while not await succeeds():  # the rejection is remembered for a moment
                await asyncio.sleep(0.2)
        assert await output_of(mosquitto_pub) == ""
        lines = (await output_of(command.printed("auth list"))).splitlines()
        assert [line.split() for line in lines] == [
            [token, "token", "app", "my-device", "(my-t…)", "Active"],
            [client, "client", "demo", "my-client", "Active"],
        ]
        revoke = command.printed("auth revoke")
        revoke[revoke.index("ID")] = token
        await output_of(revoke)
        async with asyncio.timeout(START_TIMEOUT_S):
            while await succeeds():
                await asyncio.sleep(0.2)
        output = await output_of(curl)
        assert "HTTP/1.1 401" in output
        assert "EndpointToken" in output
        resume = [word if word != "revoke" else "resume" for word in revoke]
        await output_of(resume)
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await succeeds():
                await asyncio.sleep(0.2)
        revoke[revoke.index(token)] = client
        await output_of(revoke)
        async with asyncio.timeout(START_TIMEOUT_S):
            while await succeeds():
                await asyncio.sleep(0.2)
        assert "Basic" in await output_of(curl)
        command.process.send_signal(signal.SIGINT)
        code, errors = await command.end()
        assert code == 0
        assert "Traceback" not in errors
        assert "my-password" not in errors
        assert "my-token" not in errors


async def test_data_dir_is_used_and_stays(ports: Ports, tmp_path: Path) -> None:
    directory = tmp_path / "data" / "here"
    async with dev(ports, "--data-dir", str(directory)) as command:
        await command.ready()
        command.process.send_signal(signal.SIGTERM)
        assert (await command.end())[0] == 0
    assert (directory / "jetstream").is_dir()
    assert "Server is ready" in (directory / "nats-server.log").read_text()


@pytest.mark.parametrize(
    ("listener", "named"),
    [
        ("nats", "--nats-port"),
        ("mqtt", "kaa.kpc.transports.mqtt.tcp.port"),
        ("http", "kaa.kpc.transports.http.port"),
        ("admin", "server.port"),
        ("rest", "--rest-port"),
    ],
)
async def test_a_busy_port_is_one_clear_line(ports: Ports, listener: str, named: str) -> None:
    port = getattr(ports, listener)
    with socket.create_server((HOST, port)):
        async with dev(ports) as command:
            assert await command.line() == "", "printed addresses that are not served"
            code, errors = await command.end()
    assert code == 1
    (line,) = [line for line in errors.splitlines() if "in use" in line]
    assert str(port) in line
    assert named in line
    assert "Traceback" not in errors
    assert not [line for line in errors.splitlines() if "[error" in line or "[warning" in line]


async def test_a_part_that_dies_ends_all(ports: Ports) -> None:
    async with dev(ports) as command:
        await command.ready()
        (nats_server,) = [pid for pid, words in command.seen.items() if "--store_dir" in words]
        os.kill(nats_server, signal.SIGKILL)
        code, errors = await command.end()
    assert code == 1
    assert "nats-server has ended with code -9" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGINT, "nats-server"), (signal.SIGTERM, "extensions"), (signal.SIGHUP, "extensions")],
)
async def test_a_signal_during_the_start(ports: Ports, number: signal.Signals, after: str) -> None:
    """SIGHUP is a terminal that was closed."""
    needle = {"nats-server": "--store_dir", "extensions": "-m kaa_ext run"}[after]
    async with dev(ports) as command:

        def started() -> bool:
            command.look()
            return any(needle in words for words in command.seen.values())

        await until(started, after)
        command.process.send_signal(number)
        code, errors = await command.end()
        assert code == 0, errors
        assert "Traceback" not in errors


async def test_one_line_for_what_is_wrong_with_the_configuration(ports: Ports) -> None:
    ports.file.write_text("kaa.kpc.transports.http.prot: 1")
    async with dev(ports) as command:
        code, errors = await command.end()
    assert code == 1
    assert errors == (
        f'{ports.file}:1: kaa.kpc.transports.http.prot: unknown key; did you mean "kaa.kpc.transports.http.port"?\n'
    )


async def test_one_line_for_a_data_dir_that_cannot_be(ports: Ports, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with dev(ports, "--data-dir", str(tmp_path / "file" / "below")) as command:
        code, errors = await command.end()
    assert code == 1
    assert len(errors.splitlines()) == 1
    assert "--data-dir" in errors
