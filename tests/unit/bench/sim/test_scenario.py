"""Scenarios: what is accepted, and that what is wrong is named with its place."""

from pathlib import Path

import pytest
from kaa_bench.errors import BenchError
from kaa_bench.sim.scenario import load, parse
from kaa_bench.sim.values import Duration

EXAMPLES = Path(__file__).parents[4] / "docs" / "examples"
FLEET = """
  - name: meters
    protocol: mqtt
    devices: 3
    interval: 1.5s
    payload: {energy: {kind: counter}}
"""
SCENARIO = f"name: x\nduration: 10m\nfleets:{FLEET}"


def test_defaults_are_those_of_the_gateway() -> None:
    scenario = parse(SCENARIO, "x.yml")
    (fleet,) = scenario.fleets
    assert (scenario.duration, fleet.interval, scenario.devices) == (600.0, 1.5, 3)
    assert (scenario.target.mqtt, scenario.target.http, scenario.target.coap, scenario.target.kpudp) == (
        1883, 8080, 5683, 5686,
    )  # fmt: skip
    assert fleet.token_of(7) == "sim-000007"


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("1.5s", 1.5), ("10m", 600), ("2h", 7200)])
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("interval: 1.5s", "interval: 3", "'3' is not a duration|3 is not a duration"),
        ("interval: 1.5s", "interval: 1.5 s", r"is not a duration.*at `\$\.fleets\[0\]\.interval`"),
        ("interval: 1.5s", "interval: 0s", r"`interval` is more than 0.*`\$\.fleets\[0\]`"),
        ("devices: 3", "devices: 0", r"`\$\.fleets\[0\]\.devices`"),
        ("devices: 3", "devises: 3", r"unknown field `devises`.*`\$\.fleets\[0\]`"),
        ("protocol: mqtt", "protocol: amqp", r"`\$\.fleets\[0\]\.protocol`"),
        ("kind: counter", "kind: count", r"`\$\.fleets\[0\]\.payload\[\.\.\.\]"),
        ("kind: counter", "kind: counter, from: 3", r"unknown field `from`"),
        ("kind: counter", "kind: walk, start: 5, step: 1, high: 2", "`start` lies between"),
        ("kind: counter", "kind: choice, values: []", r"`\$\.fleets\[0\]\.payload\[\.\.\.\]\.values`"),
        ("duration: 10m", "duration: 10m\nramp-up: 11m", "`duration` is longer than `ramp-up`"),
        ("duration: 10m", "duration: 10m\ncriteria: {p99: 1}", r"`\$\.criteria\.p99`"),
        ("duration: 10m", "duration: 10m\ntarget: {mqtt: 70000}", r"`\$\.target\.mqtt`"),
        ("devices: 3", "devices: 3\n    token: same-for-all", "`token` has {device}"),
        ("devices: 3", "devices: 3\n    token: a/{device}", "`token` has {device}"),
        ("devices: 3", "devices: 3\n    token: '{device}{other}'", "`token` has {device}"),
        ("protocol: mqtt", "protocol: http\n    answers: true", "are of MQTT"),
        ("protocol: mqtt", "protocol: kpudp\n    transport: tls", "`transport` is of MQTT"),
        ("protocol: mqtt", "protocol: http\n    transport: websocket", "HTTP has tcp and tls"),
        ("protocol: mqtt", "protocol: coap\n    user: a", "are of MQTT, HTTP and kpudp"),
        ("devices: 3", "devices: 3\n    password: a", "`password` needs `user`"),
        ("devices: 3", "devices: 3\n    transport: tls\n    cert-file: a", "go together"),
        ("devices: 3", "devices: 3\n    cert-file: a\n    key-file: a", "`cert-file` needs"),
        ("devices: 3", "devices: 3\n    clients: independent\n    user: a", "are for native clients"),
        ("devices: 3", "devices: 3\n    payload-files: [a]", "either `payload` or `payload-files`"),
        ("devices: 3", "devices: 3\n    stages: [{duration: 1s}]", "missing required field `rate`"),
        ("devices: 3", "devices: 3\n    clients: independent\n    transport: websocket", "native clients"),
        ("protocol: mqtt", "protocol: coap\n    configuration: cmx", "need pushes"),
        ("protocol: mqtt", "protocol: kpudp\n    clients: independent", "not for kpudp"),
        ("devices: 3", "devices: 3\n    clients: independent\n    configuration: cmx", "native clients"),
        (FLEET, FLEET + FLEET, "two fleets have one `name`"),
        ("name: x\n", "name: [\n", "not YAML"),
        ("name: x\n", "", "missing required field `name`"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(old: str, new: str, said: str) -> None:
    assert old in SCENARIO
    with pytest.raises(BenchError, match=r"^x\.yml: .*" + f"(?:{said})"):
        parse(SCENARIO.replace(old, new, 1), "x.yml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"missing\.yml cannot be read"):
        load(tmp_path / "missing.yml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yml")), ids=lambda path: path.name)
def test_the_examples_are_scenarios(path: Path) -> None:
    assert load(path).devices > 0
