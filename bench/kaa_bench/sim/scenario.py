"""Scenarios: fleets of devices, a duration, and criteria for passing.

An unknown key, and a value of the wrong type or out of range, is an error that names the key. docs/simulator.md has all
keys.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, structs

from kaa_bench.errors import BenchError
from kaa_bench.sim.payloads import Value
from kaa_bench.sim.stages import Stage
from kaa_bench.sim.values import Duration, Strict

PATTERN_FIELD = re.compile(r"\{device(:0\d+)?\}")
"""The field of a token pattern, with the width of the zero-padded number."""
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$"


Transport = Literal["tcp", "tls", "websocket", "websocket-tls"]
Port = Annotated[int, Meta(ge=1, le=65535)]
Name = Annotated[str, Meta(pattern=NAME)]
Share = Annotated[float, Meta(ge=0, le=1)]


SHARED_KEY = re.compile(r"([0-9a-fA-F]{2}){16,64}")
"""A pre-shared key."""


class Target(Strict, frozen=True, kw_only=True):
    """The address of the gateway."""

    host: str = "127.0.0.1"
    mqtt: Port = 1883
    mqtt_tls: Port = 8883
    websocket: Port = 8083
    websocket_tls: Port = 8084
    http: Port = 8080
    https: Port = 8443
    coap: Port = 5683
    kpudp: Port = 5686
    kpudp_secure: Port = 5687
    ca_file: str | None = None
    """PEM file of the certificate authority (default: the system's trust store)."""


def transport_field(transport: Transport) -> str:
    """Return the field of a target that has the port of an MQTT transport."""
    return "mqtt" if transport == "tcp" else "mqtt_tls" if transport == "tls" else transport.replace("-", "_")


class Commands(Strict, frozen=True, kw_only=True):
    """The commands that devices execute (11/CEP)."""

    extension: Name = "cex"
    types: Annotated[tuple[Name, ...], Meta(min_length=1)]


class Downlink(Strict, frozen=True, kw_only=True):
    """Pushes to the devices, which this simulator sends over NATS in the name of the fleet's extension."""

    interval: Duration
    """The time between two pushes to a device."""
    nats: str = "nats://localhost:4222"
    instance: Name = "kpc"
    """The service instance name of the gateway."""
    path: str = "push"
    endpoint: str | None = None
    """Pattern of the endpoint ID; by default it is the token, as with identity `open`."""


class Criteria(Strict, frozen=True, kw_only=True):
    """The criteria for passing."""

    errors: Annotated[int, Meta(ge=0)] = 0
    acknowledged: Share = 1.0
    """A share of the sent messages."""
    delivered: Share = 1.0
    """A share of the pushes of `downlink`."""
    p50: Duration | None = None
    p99: Duration | None = None
    connected: Share = 1.0
    """The share of devices that were connected at some time."""


class Fleet(Strict, frozen=True, kw_only=True):
    """A number of devices with the same properties."""

    name: Name
    protocol: Literal["mqtt", "http", "coap", "kpudp"]
    devices: Annotated[int, Meta(ge=1, le=1_000_000)]
    interval: Duration
    payload: dict[str, Value] = msgspec.field(default_factory=dict)
    payload_files: tuple[str, ...] = ()
    """Files whose contents are the messages, in turn, instead of `payload`."""
    application_version: Name = "demo_application_v1"
    extension: Name = "dcx"
    path: str = "json"
    token: str = "sim-{device:06}"
    tokens: str | None = None
    """A CSV file with the columns `token` and, if wanted, `user` and `password`; a device a line."""
    user: str | None = None
    password: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    """User name, password and client certificate (PEM). {device} stands for the number of the device.

    For kpudp they are the identity and its pre-shared key in hexadecimal, and make it encrypted.
    """
    sources: tuple[str, ...] = ()
    """Local addresses that the devices connect from, in turn."""
    clients: Literal["native", "independent"] = "native"
    """The clients: our codecs for load, or independent ones (aiomqtt, aiocoap, aiohttp) to check that they work."""
    transport: Transport = "tcp"
    stages: tuple[Stage, ...] = ()
    """How the rate changes, from the start of the run on."""
    jitter: Share = 0.1
    """The share of the interval by which a message may be early or late."""
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 1
    qos: Literal[0, 1, 2] = 1
    mqtt_version: Literal["3.1.1", "5", 5] = "3.1.1"
    answers: bool = False
    """Whether an MQTT message is a request, and is done when the extension has answered."""
    timeout: Duration = Duration(30.0)
    churn: Duration | None = None
    """The average time for which a device stays connected before it leaves and reconnects."""
    configuration: Name | None = None
    """The extension whose configurations devices apply (7/CMP)."""
    commands: Commands | None = None
    downlink: Downlink | None = None
    criteria: Criteria | None = None
    """Criteria of this fleet, beside those of the scenario."""

    def __post_init__(self) -> None:
        if len(PATTERN_FIELD.findall(self.token)) != 1 or set(PATTERN_FIELD.sub("", self.token)) & set(
            "{}/#+"
        ):
            raise ValueError(
                "`token` has {device} or {device:06} once, and no other brace, slash or wildcard"
            )
        if self.interval <= 0:
            raise ValueError("`interval` is more than 0")
        if self.protocol != "mqtt" and (self.answers or self.qos != 1 or self.mqtt_version != "3.1.1"):
            raise ValueError("`qos`, `answers` and `mqtt-version` are of MQTT")
        if self.transport not in {"mqtt": (self.transport,), "http": ("tcp", "tls")}.get(
            self.protocol, ("tcp",)
        ):
            raise ValueError("`transport` is of MQTT; HTTP has tcp and tls")
        if bool(self.payload) == bool(self.payload_files):
            raise ValueError("either `payload` or `payload-files` is given")
        self._check_identity()
        if self.protocol in ("http", "coap") and (self.configuration or self.commands or self.downlink):
            raise ValueError("`configuration`, `commands` and `downlink` need pushes: mqtt or kpudp")
        if self.protocol == "kpudp" and self.clients == "independent":
            raise ValueError("`clients: independent` is not for kpudp: there is no other client of it")
        if self.clients == "independent" and self.transport.startswith("websocket"):
            raise ValueError("`transport: websocket` is for native clients")
        if self.clients == "independent" and (self.configuration or self.commands or self.downlink):
            raise ValueError("`configuration`, `commands` and `downlink` are for native clients")
        if self.downlink is not None and self.downlink.interval <= 0:
            raise ValueError("`downlink.interval` is more than 0")

    def _check_identity(self) -> None:
        if self.protocol == "coap" and (self.user or self.password):
            raise ValueError("`user` and `password` are of MQTT, HTTP and kpudp")
        if self.protocol == "kpudp" and bool(self.user) != bool(self.password):
            raise ValueError("kpudp needs both `user`, the identity, and `password`, the key in hexadecimal")
        if self.protocol == "kpudp" and self.password and not SHARED_KEY.fullmatch(self.password):
            raise ValueError("`password` of kpudp is a key of 16 to 64 bytes in hexadecimal")
        if self.password is not None and self.user is None:
            raise ValueError("`password` needs `user`")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("`cert-file` and `key-file` go together")
        if self.cert_file is not None and not self.tls:
            raise ValueError("`cert-file` needs `transport: tls` or `websocket-tls`")
        if self.clients == "independent" and (
            self.user
            or self.cert_file
            or self.sources
            or self.tokens
            or (self.protocol == "http" and self.tls)
        ):
            raise ValueError("identities, `sources` and HTTPS are for native clients")

    @property
    def tls(self) -> bool:
        """Return whether its connections are encrypted."""
        return self.transport.endswith("tls")

    def token_of(self, device: int) -> str:
        """Return the endpoint token of a device."""
        return self.token.format(device=device)


class Scenario(Strict, frozen=True, kw_only=True):
    """A scenario."""

    name: str
    duration: Duration
    fleets: Annotated[tuple[Fleet, ...], Meta(min_length=1)]
    ramp_up: Duration = Duration(0.0)
    """The time over which the devices of each fleet start evenly; it is part of the duration."""
    target: Target = Target()
    criteria: Criteria = Criteria()
    give_up: Duration = Duration(15.0)
    """The time after which the run ends if no device has connected."""
    seed: int = 1
    """The seed of random numbers: payloads and times are the same in each run."""

    def __post_init__(self) -> None:
        names = [fleet.name for fleet in self.fleets]
        if len(set(names)) != len(names):
            raise ValueError("two fleets have one `name`")
        if self.duration <= self.ramp_up:
            raise ValueError("`duration` is longer than `ramp-up`")

    def at(self, host: str | None, ports: dict[str, int]) -> "Scenario":
        """Return the scenario at another target. Raise BenchError for a port that does not exist."""
        changes: dict[str, Any] = {name.replace("-", "_"): port for name, port in ports.items()}
        if host is not None:
            changes["host"] = host
        fields = {field.encode_name for field in structs.fields(Target)} - {"host", "ca-file"}
        for name, port in ports.items():
            if name not in fields:
                raise BenchError(f"--port.{name}: expected one of {', '.join(sorted(fields))}")
            if not 1 <= port <= 65535:
                raise BenchError(f"--port.{name} {port}: expected 1 to 65535")
        return structs.replace(self, target=structs.replace(self.target, **changes))

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
