"""The reference services in a soak: what devices ask them, and where the effects are stored.

Each service has its requests; a device sends them in turn, by the number of the message. Some store something: that
must be there afterwards, if the device heard 200. The others must be answered with what was stored before.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import aiohttp
import nats
import nats.errors
from kaa_ext.messages import cip
from nats.aio.client import Client

from kaa_bench.errors import BenchError
from kaa_bench.processes import HOST
from kaa_bench.soak.checker import Promises
from kaa_bench.soak.devices import ANSWER_TIMEOUT_S, Device

SAMPLES = "samples"
"""The instance of dcx; its name tells it from the extension of the core mode."""
SERVICES = (f"{SAMPLES}=dcx", "epts", "epmx", "cmx", "ecr", "cex", "tsx", "echo", "auth")
SETTINGS: dict[str, object] = {
    SAMPLES: {"must-confirm": ["epts"], "confirmation-timeout": 5},
    "epts": {"transmitters": [SAMPLES]},
}
INSTANCES = (SAMPLES, "epmx", "cmx", "cex", "tsx", "echo")
KEYS = 900
"""Metadata keys of a device, which it writes in turn."""
CONFIGURATION = '{"soak":true}'
COMMAND = "reboot"
COMMAND_TIMEOUT_S = 600.0
UNAUTHORIZED = 401
SHELL_TIMEOUT_S = 60.0


class Exchange(NamedTuple):
    """A request of a device. `is_right` judges its answer; None if the request stores something instead."""

    instance: str
    path: str
    body: Callable[[int], object]
    is_right: Callable[["ServicesDevice", int, Any], bool] | None = None


def _has_newest(device: "ServicesDevice", number: int, answer: Any) -> bool:
    """Return whether metadata have what the device has written last."""
    return not device.written or int(answer.get(f"k{device.written % KEYS}", -1)) >= device.written


EXCHANGES = (
    Exchange(SAMPLES, "json", lambda number: [number]),
    Exchange("epmx", "update/keys", lambda number: {f"k{number % KEYS}": number}),
    Exchange("epmx", "get", lambda number: {}, _has_newest),
    Exchange(
        "cmx",
        "config/json",
        lambda number: {"configId": ""},
        lambda device, number, answer: answer["config"] == json.loads(CONFIGURATION),
    ),
    Exchange("cmx", "applied/json", lambda number: {"configId": str(number)}),
    Exchange("cex", f"command/{COMMAND}", lambda number: {}),
    Exchange("tsx", "time", lambda number: {}, lambda device, number, answer: answer["timestamp"] > 0),
    Exchange("echo", "any", lambda number: number, lambda device, number, answer: bool(answer == number)),
)
"""The requests, which take turns. The one to cex fetches commands, and then sends their results."""
SAMPLE, UPDATE, _, _, APPLIED, EXECUTE, _, _ = range(len(EXCHANGES))


class Commands:
    """Sends commands to devices. What NATS does not take is no command."""

    def __init__(self, nats_url: str) -> None:
        self._nats_url = nats_url
        self._client = Client()

    async def open(self) -> None:
        """Connect."""

        async def silent(error: Exception) -> None:
            pass  # faults are the soak's purpose

        await self._client.connect(
            self._nats_url, error_cb=silent, max_reconnect_attempts=-1, reconnect_time_wait=1
        )

    @property
    def client(self) -> Client:
        """The connection."""
        return self._client

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def invoke(self, endpoint_id: str, number: int) -> None:
        """Send a command whose ID is the number of a message."""
        datum = cip.COMMAND_REQUEST.encode(
            timeout=COMMAND_TIMEOUT_S,
            endpointId=endpoint_id,
            commandType=COMMAND,
            commandId=number,
            payload=None,
        )
        with suppress(nats.errors.Error):
            await self._client.publish(cip.request_subject("cex"), datum)


class ServicesDevice(Device):
    """An HTTP device that sends requests to all services, one after the other. `commands` sends it commands."""

    kind = "HTTP"
    promises = Promises(durable=True, ordered=False)
    commands: Commands
    written = 0
    """The number of the last update of metadata that was answered with 200."""

    async def session(self) -> None:
        """See `Device.session`."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                await self.may_send()
                number = self.history.send()
                exchange = EXCHANGES[number % len(EXCHANGES)]
                if number % len(EXCHANGES) == EXECUTE:
                    await self.commands.invoke(self.token, number)
                answer = await self._post(client, exchange.instance, exchange.path, exchange.body(number))
                if answer is None:
                    self.history.refuse(number)
                elif number % len(EXCHANGES) == EXECUTE:
                    await self._execute(client, json.loads(answer))
                else:
                    self._confirm(number)
                    if exchange.is_right is not None and exchange.is_right(self, number, json.loads(answer)):
                        self.history.deliver(number)
                    if number % len(EXCHANGES) == UPDATE:
                        self.written = number

    async def _execute(self, client: aiohttp.ClientSession, commands: Sequence[Any]) -> None:
        """Send the results of commands. Each command has the number of the message that followed it."""
        for command in commands:
            result = {"id": command["id"], "statusCode": 200}
            if await self._post(client, "cex", f"result/{COMMAND}", result) is not None:
                self._confirm(command["id"])

    async def _post(
        self, client: aiohttp.ClientSession, instance: str, path: str, body: object
    ) -> bytes | None:
        """Send a request. Return the payload of the answer, None if it is not 200."""
        prefix = self.path.removesuffix(f"/{self.instance}/{self.token}/json")
        url = f"http://{HOST}:{self.port}/{prefix}/{instance}/{self.token}/{path}"
        async with client.post(url, json=body) as response:
            payload = await response.read()
            if response.status == UNAUTHORIZED:
                raise RuntimeError("auth does not know a token that was added")
            return payload if response.status == 200 else None

    def _confirm(self, number: int) -> None:
        self.history.acknowledge(number)
        self.history.answer(number)


def prepare(nats_url: str, application: str, app_version: str, tokens: Sequence[str]) -> None:
    """Add the tokens and the configurations of devices. Raise BenchError if a service does not take them."""
    for token in tokens:
        _kaa_ext(nats_url, "config", "set", token, CONFIGURATION, "--app-version", app_version)
        _kaa_ext(nats_url, "auth", "add", token, "--token", token, "--app", application)


def _kaa_ext(nats_url: str, *arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "kaa_ext", *arguments, "--nats", nats_url]
    done = subprocess.run(command, capture_output=True, check=False, timeout=SHELL_TIMEOUT_S)
    if done.returncode:
        raise BenchError(done.stderr.decode(errors="replace").strip())
