"""The file for Locust: `locust -f bench/kaa_bench/locust/locustfile.py`. docs/simulator.md has the commands.

A user is a device. MQTT, CoAP and KP/UDP use the project's codecs; HTTP uses Locust's own fast client.
"""

import itertools
import json
import os
import random
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from kaa_gateway.errors import GatewayError
from locust import FastHttpUser, User, constant_pacing, events, task

from kaa_bench.errors import BenchError
from kaa_bench.locust.clients import CoapDevice, KpudpDevice, MqttDevice

MILLISECONDS = 1000.0
numbers = itertools.count()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator] # of Locust's
def add_options(parser: ArgumentParser) -> None:
    """Add options for the gateway's ports and the devices, which are also in the form of the page."""
    for name, default in (("mqtt", 1883), ("http", 8080), ("coap", 5683), ("kpudp", 5686)):
        parser.add_argument(f"--{name}-port", type=int, default=default, help=f"{name} port of the gateway")
    parser.add_argument("--mqtt-version", default="3.1.1", choices=["3.1.1", "5"], help="version of MQTT")
    parser.add_argument("--gateway", default="127.0.0.1", help="host of the gateway")
    parser.add_argument("--app-version", default="demo_application_v1", help="application version")
    parser.add_argument("--extension", default="dcx", help="extension instance that gets the samples")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two samples of a device")


def pacing(user: "DeviceUser | HttpDevice") -> float:
    """Wait so that a sample is sent every `--interval` seconds, however long the last one took."""
    return float(constant_pacing(user.environment.parsed_options.interval)(user))


def resource_path(user: "DeviceUser | HttpDevice") -> str:
    """Return the resource path of a device. Its token is unique over all workers."""
    options = user.environment.parsed_options
    token = f"locust-{os.getpid()}-{next(numbers)}"
    return f"kp1/{options.app_version}/{options.extension}/{token}/json"


def sample() -> str:
    """Return a sample of a device."""
    return json.dumps({"temperature": round(random.uniform(15, 25), 2), "battery": 3.7})


class DeviceUser(User):
    """A device on a codec of the project. Connecting and sending are requests for Locust."""

    abstract = True
    protocol: str
    wait_time = pacing

    def on_start(self) -> None:
        """Connect the device."""
        self.path = resource_path(self)
        self.device: Any = None
        self.connect()

    def on_stop(self) -> None:
        """Disconnect the device."""
        if self.device is not None:
            self.device.close()

    def connect(self) -> None:
        """Connect if the device is not connected. The next sample tries again after a failure."""
        options = self.environment.parsed_options
        port = getattr(options, f"{self.protocol}_port")
        self.timed("connect", lambda: setattr(self, "device", self.make((options.gateway, port))))

    def make(self, address: tuple[str, int]) -> Any:
        """Return a connected device."""
        raise NotImplementedError

    def timed(self, name: str, work: Callable[[], object]) -> None:
        """Call `action`, and report its time and its error to Locust."""
        started = time.perf_counter()
        failure: Exception | None = None
        try:
            work()
        except (OSError, BenchError, GatewayError) as error:
            failure = error
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=name,
            response_time=(time.perf_counter() - started) * MILLISECONDS,
            response_length=0,
            exception=failure,
            context={},
        )
        if isinstance(failure, OSError):
            self.device = None

    @task
    def send(self) -> None:
        """Send a sample, and wait for the acknowledgement."""
        if self.device is None:
            self.connect()
        if self.device is not None:
            payload = sample().encode()
            self.timed("sample", lambda: self.device.send(self.path, payload))


class MqttUser(DeviceUser):
    """A device of MQTT, QoS 1."""

    protocol = "mqtt"

    def make(self, address: tuple[str, int]) -> Any:
        """See DeviceUser."""
        version = self.environment.parsed_options.mqtt_version
        return MqttDevice(address, self.path.split("/")[3], version)


class CoapUser(DeviceUser):
    """A device of CoAP with confirmable messages."""

    protocol = "coap"

    def make(self, address: tuple[str, int]) -> Any:
        """See DeviceUser."""
        return CoapDevice(address)


class KpudpUser(DeviceUser):
    """A device of KP/UDP with confirmed messages."""

    protocol = "kpudp"

    def make(self, address: tuple[str, int]) -> Any:
        """See DeviceUser."""
        return KpudpDevice(address)


class HttpDevice(FastHttpUser):
    """A device of HTTP."""

    wait_time = pacing
    host = "http://127.0.0.1"

    def on_start(self) -> None:
        """Choose a token."""
        options = self.environment.parsed_options
        self.url = f"http://{options.gateway}:{options.http_port}/{resource_path(self)}"

    @task
    def send(self) -> None:
        """Send a sample, and wait for the extension's answer."""
        self.client.post(self.url, data=sample(), name="sample")
