"""Scenarios: fleets of devices, a duration, and criteria for passing.

An unknown key, and a value of the wrong type or out of range, is an error that names the key. docs/simulator.md has all
keys.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from kaa_bench.connecting import Protocol
from kaa_bench.errors import BenchError
from kaa_bench.sim.payloads import Value

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
PATTERN_FIELD = re.compile(r"\{device(:0\d+)?\}")
"""The field of a token pattern, with the width of the zero-padded number."""
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$"


class Duration(float):
    """A duration in seconds, written with a unit: `200ms`, `1.5s`, `10m`, `1h`."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Parse a duration. Raise ValueError for a wrong one."""
        found = DURATION.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(f"{text!r} is not a duration such as 200ms, 1.5s, 10m or 1h")
        return cls(float(found[1]) * UNITS[found[2]])


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    pass


Port = Annotated[int, Meta(ge=1, le=65535)]
Name = Annotated[str, Meta(pattern=NAME)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Target(_Strict, frozen=True, kw_only=True):
    """The address of the gateway."""

    host: str = "127.0.0.1"
    mqtt: Port = 1883
    mqtt_tls: Port = 8883
    websocket: Port = 8083
    websocket_tls: Port = 8084
    http: Port = 8080
    coap: Port = 5683
    kpudp: Port = 5686
    ca_file: str | None = None
    """PEM file of the certificate authority (default: the system's trust store)."""


class Commands(_Strict, frozen=True, kw_only=True):
    """The commands that devices execute (11/CEP)."""

    extension: Name = "cex"
    types: Annotated[tuple[Name, ...], Meta(min_length=1)]


class Fleet(_Strict, frozen=True, kw_only=True):
    """A number of devices with the same properties."""

    name: Name
    protocol: Protocol
    devices: Annotated[int, Meta(ge=1, le=1_000_000)]
    interval: Duration
    payload: dict[str, Value]
    application_version: Name = "demo_application_v1"
    extension: Name = "dcx"
    path: str = "json"
    token: str = "sim-{device:06}"
    clients: Literal["native", "independent"] = "native"
    """The clients: our codecs for load, or independent ones (aiomqtt, aiocoap, aiohttp) to check that they work."""
    transport: Literal["tcp", "tls", "websocket", "websocket-tls"] = "tcp"
    """QoS of MQTT."""
    jitter: Share = 0.1
    """The share of the interval by which a message may be early or late."""
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 1
    qos: Literal[0, 1] = 1
    mqtt_version: Literal["3.1.1", "5", 5] = "3.1.1"
    answers: bool = False
    """Whether an MQTT message is a request, and is done when the extension has answered."""
    timeout: Duration = Duration(30.0)
    churn: Duration | None = None
    """The average time for which a device stays connected before it leaves and reconnects."""
    configuration: Name | None = None
    """The extension whose configurations devices apply (7/CMP)."""
    commands: Commands | None = None

    def __post_init__(self) -> None:
        if len(PATTERN_FIELD.findall(self.token)) != 1 or set(PATTERN_FIELD.sub("", self.token)) & set(
            "{}/#+"
        ):
            raise ValueError(
                "`token` has {device} or {device:06} once, and no other brace, slash or wildcard"
            )
        if self.interval <= 0:
            raise ValueError("`interval` is more than 0")
        if self.protocol != "mqtt" and (
            self.answers or self.transport != "tcp" or self.qos == 0 or self.mqtt_version != "3.1.1"
        ):
            raise ValueError("`qos`, `answers`, `transport` and `mqtt-version` are of MQTT")
        if self.protocol in ("http", "coap") and (self.configuration or self.commands):
            raise ValueError("`configuration` and `commands` need pushes: mqtt or kpudp")
        if self.protocol == "kpudp" and self.clients == "independent":
            raise ValueError("`clients: independent` is not for kpudp: there is no other client of it")
        if self.clients == "independent" and self.transport.startswith("websocket"):
            raise ValueError("`transport: websocket` is for native clients")
        if self.clients == "independent" and (self.configuration or self.commands):
            raise ValueError("`configuration` and `commands` are for native clients")

    @property
    def tls(self) -> bool:
        """Return whether its connections are encrypted."""
        return self.transport.endswith("tls")

    def token_of(self, device: int) -> str:
        """Return the endpoint token of a device."""
        return self.token.format(device=device)


class Criteria(_Strict, frozen=True, kw_only=True):
    """The criteria for passing."""

    errors: Annotated[int, Meta(ge=0)] = 0
    acknowledged: Share = 1.0
    """A share of the sent messages."""
    p50: Duration | None = None
    p99: Duration | None = None
    connected: Share = 1.0
    """The share of devices that were connected at some time."""


class Scenario(_Strict, frozen=True, kw_only=True):
    """A scenario."""

    name: str
    duration: Duration
    fleets: Annotated[tuple[Fleet, ...], Meta(min_length=1)]
    ramp_up: Duration = Duration(0.0)
    """The time over which the devices of each fleet start evenly; it is part of the duration."""
    target: Target = Target()
    criteria: Criteria = Criteria()
    seed: int = 1
    """The seed of random numbers: payloads and times are the same in each run."""

    def __post_init__(self) -> None:
        names = [fleet.name for fleet in self.fleets]
        if len(set(names)) != len(names):
            raise ValueError("two fleets have one `name`")
        if self.duration <= self.ramp_up:
            raise ValueError("`duration` is longer than `ramp-up`")

    @property
    def devices(self) -> int:
        """The number of devices of all fleets."""
        return sum(fleet.devices for fleet in self.fleets)


def _decode_hook(kind: type, value: Any) -> Any:
    if kind is Duration:
        return Duration.parse(value)
    raise NotImplementedError(kind)


def parse(text: str, source: str) -> Scenario:
    """Parse a scenario from YAML. Raise BenchError that names a wrong key."""
    try:
        return msgspec.convert(yaml.safe_load(text), Scenario, dec_hook=_decode_hook)
    except yaml.YAMLError as error:
        raise BenchError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise BenchError(f"{source}: {error}") from None


def load(path: Path) -> Scenario:
    """Read a scenario from a file."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from None
    return parse(text, str(path))
